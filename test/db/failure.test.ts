import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isConnectionLost, isOutage, isRetryable } from '../../src/db/failure.ts';

const failure = (code: string): Error => Object.assign(new Error(code), { code });

describe('what a driver says', () => {
  for (const code of [
    'EAI_AGAIN',
    'ENETUNREACH',
    'ER_READ_ONLY_MODE',
    'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION',
    'ER_TOO_MANY_USER_CONNECTIONS',
    'ER_USER_LIMIT_REACHED',
  ])
    it(`of a database that cannot be used is an outage, and not tried again at once: ${code}`, () => {
      assert.ok(isOutage(failure(code)) && !isRetryable(failure(code)));
    });

  it('of a session that MySQL has given up is a lost connection', () => {
    const error = failure('ER_CLIENT_INTERACTION_TIMEOUT');
    assert.ok(isConnectionLost(error) && isOutage(error) && isRetryable(error));
  });

  it('of a statement that is wrong is no outage', () => {
    assert.ok(!isOutage(failure('ER_PARSE_ERROR')) && !isOutage(failure('ER_DATA_TOO_LONG')));
  });
});
