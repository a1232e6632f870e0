import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isSubject, SUBJECT_MAX } from '../../src/domain/identity-provider.ts';

describe('a subject', () => {
  it('is a text that the database does not take for another', () => {
    for (const subject of ['a', '00u1', 'a b', 'x'.repeat(SUBJECT_MAX)]) assert.ok(isSubject(subject), subject);
    for (const none of ['', 'a ', ' ', 'x'.repeat(SUBJECT_MAX + 1), 7, null, undefined, ['a']])
      assert.ok(!isSubject(none), String(none));
  });
});
