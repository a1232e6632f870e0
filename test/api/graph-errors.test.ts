import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GraphQLError, parse, Source, validate } from 'graphql';
import { VirtgraphError } from '../../src/domain/errors.ts';
import { toGraphQLError } from '../../src/graphql/errors.ts';
import { schema } from '../../src/graphql/schema.ts';

const logged: { err: unknown; requestId: string }[] = [];
const log = { error: (entry: unknown) => logged.push(entry as (typeof logged)[number]) } as never;
const translate = (error: unknown) => {
  logged.length = 0;
  return toGraphQLError(error, 'request-1', log).toJSON();
};
const wrapped = (error: Error) => new GraphQLError(error.message, { originalError: error, path: ['vm', 'host'] });

test('an error for the caller keeps its code, message and place, and is not logged', () => {
  const error = new VirtgraphError({ code: 'NOT_FOUND', message: 'There is no such VM.', path: ['id'] });
  assert.deepEqual(translate(wrapped(error)), {
    message: 'There is no such VM.',
    path: ['vm', 'host'],
    extensions: { code: 'NOT_FOUND', argument: ['id'] },
  });
  assert.deepEqual(translate(new GraphQLError('twice', { originalError: wrapped(error) })).extensions, {
    code: 'NOT_FOUND',
    argument: ['id'],
  });
  assert.deepEqual(translate(error).extensions, { code: 'NOT_FOUND', argument: ['id'] });
  assert.deepEqual(logged, []);
});

test('a database that is away is UNAVAILABLE, and why is in the log alone', () => {
  const away = Object.assign(new Error('connect ECONNREFUSED /secret.sock'), { code: 'ECONNREFUSED', errno: -111 });
  const told = translate(wrapped(away));
  assert.equal(told.extensions?.['code'], 'UNAVAILABLE');
  assert.doesNotMatch(JSON.stringify(told), /secret/);
  assert.deepEqual(logged, [{ err: away, requestId: 'request-1' }]);
});

test('a fault of ours is masked: the caller gets the id that finds it in the log', () => {
  for (const fault of [new TypeError('x is not a function'), 'a thrown string', null]) {
    const told = translate(fault);
    assert.deepEqual(told.extensions, { code: 'INTERNAL', requestId: 'request-1' });
    assert.doesNotMatch(told.message, /function|string/);
    assert.deepEqual(logged, [{ err: fault, requestId: 'request-1' }]);
  }
});

test('what the executor itself says of a field is a fault of ours', () => {
  const told = translate(
    new GraphQLError('Cannot return null for non-nullable field Vm.zone.', { path: ['vm', 'zone'] }),
  );
  assert.deepEqual(told.extensions, { code: 'INTERNAL', requestId: 'request-1' });
  assert.deepEqual(told.path, ['vm', 'zone']);
});

test('a document that is wrong is the fault of its author, who is told where', () => {
  const [error] = validate(schema, parse(new Source('{ nonsense }')));
  const told = translate(error);
  assert.equal(told.extensions?.['code'], 'INVALID_INPUT');
  assert.deepEqual(told.locations, [{ line: 1, column: 3 }]);
  const http = new GraphQLError('no', { extensions: { http: { status: 400 } } });
  assert.deepEqual(translate(http).extensions, { code: 'INVALID_INPUT', http: { status: 400 } });
  const limit = new GraphQLError('too deep', { extensions: { code: 'LIMIT_EXCEEDED' } });
  assert.equal(translate(limit).extensions?.['code'], 'LIMIT_EXCEEDED');
  assert.deepEqual(logged, []);
});
