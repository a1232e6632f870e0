import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { ExecutionResult } from 'graphql';
import { type Logger, pino } from 'pino';
import { Pipeline, type PipelineOptions } from '../../src/http/execute.ts';
import { DEFAULT_LIMITS } from '../../src/http/limits.ts';
import { ADMIN, COLUMNS, testSchema, toGraphQLError, World } from './http-fixture.ts';

const log = pino({ enabled: false });
const schema = testSchema();

function pipelineWith(options: Partial<PipelineOptions>): Pipeline {
  const { log: logger = log } = options;
  return new Pipeline({
    schema,
    limits: DEFAULT_LIMITS,
    costOf: null,
    toGraphQLError: (error, requestId) => toGraphQLError(error, requestId, logger),
    log,
    ...options,
  });
}
const pipelineFrom = (compileAtRun: number): Pipeline => pipelineWith({ compileAtRun });
const logTo = (lines: string[]): Logger => pino({}, { write: (line: string) => lines.push(line) });

async function run(
  pipeline: Pipeline,
  query: string,
  variables: Record<string, unknown> = {},
): Promise<ExecutionResult> {
  const world = new World();
  world.set('a', 1);
  world.set('b', 2);
  const operation = pipeline.prepare({ query, operationName: null, variables });
  const context = { actor: ADMIN, requestId: 'r', world, signal: new AbortController().signal };
  return JSON.parse(JSON.stringify(await pipeline.execute(operation, context, 'r'))) as ExecutionResult;
}

/** Errors come in the order in which they happen, which differs where resolvers run side by side. */
const sorted = (result: ExecutionResult): unknown => ({
  ...result,
  errors: result.errors?.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
});

suite('Compiled and interpreted execution give the same', () => {
  const cases: [title: string, query: string, variables?: Record<string, unknown>][] = [
    ['data', `{ rows { ${COLUMNS.join(' ')} } }`],
    [
      'aliases, nesting and promises',
      '{ x: box(id: "a") { label kids: children { id label children { id } } } boxes { id } }',
    ],
    ['an absent object', '{ box(id: "none") { id } }'],
    ['null where it may not be', '{ strictBox { id } actor }'],
    ['an error of a nullable field', '{ box(id: "a") { id } outage actor }'],
    ['an error that nulls its list', '{ boxes { id broken } }'],
    ['an error that nulls its parent', '{ box(id: "a") { id broken } actor }'],
    ['errors on several lines', '{\n  box(id: "a") {\n    id\n    broken\n  }\n  bug\n  outage\n}'],
    ['a value that is not of its type', '{ boxes { value } box(id: "bad") { value } }'],
    ['merged fields', '{ box(id: "a") { id } box(id: "a") { value ...F } } fragment F on Box { id broken }'],
    ['an interface', '{ node(id: "a") { __typename id ... on Box { value } } }'],
    ['the root type name', '{ __typename box(id: "a") { __typename } }'],
    [
      'skip and include',
      'query($yes: Boolean!, $no: Boolean = false) { box(id: "a") { id @skip(if: $yes) value @include(if: $yes) ...F @include(if: $no) label } } fragment F on Box { label children { id } }',
      { yes: true },
    ],
    [
      'the same fragment included and not',
      'query($no: Boolean!) { a: box(id: "a") { ...F @include(if: $no) } b: box(id: "b") { ...F } } fragment F on Box { id }',
      { no: false },
    ],
    ['variables and defaults', 'query($first: Int = 1) { boxes(first: $first) { id } }'],
    ['a variable that is null', 'query($first: Int) { boxes(first: $first) { id } }', { first: null }],
    ['a variable that is absent', 'query($first: Int) { boxes(first: $first) { id } }'],
    [
      'input objects',
      'query($input: BoxInput!) { echo(input: $input) }',
      { input: { id: 'a', values: [1, 2], tags: null } },
    ],
    [
      'input objects with variables inside',
      'query($id: ID!, $tag: String!) { echo(input: { id: $id, values: 3, tags: [$tag] }) }',
      { id: 7, tag: 'x' },
    ],
    [
      'introspection',
      '{ __schema { queryType { name } types { name kind fields { name } } } __type(name: "Box") { name } }',
    ],
  ];
  for (const [title, query, variables] of cases)
    test(title, async () => {
      const compiled = await run(pipelineFrom(1), query, variables);
      const interpreted = await run(pipelineFrom(Number.POSITIVE_INFINITY), query, variables);
      assert.deepEqual(sorted(compiled), sorted(interpreted));
    });

  test('variables that do not fit are refused in the same words before either runs', () => {
    const pipeline = pipelineFrom(1);
    assert.throws(
      () =>
        pipeline.prepare({
          query: 'query($id: ID!) { box(id: $id) { id } }',
          operationName: null,
          variables: { id: [] },
        }),
      {
        name: 'Refusal',
        status: 400,
        legacyStatus: 200,
        message: /^Variable "\$id" got invalid value; ID cannot represent value\.$/,
      },
    );
  });

  test('variables that do not fit are refused without a word of what they hold', () => {
    const pipeline = pipelineFrom(1);
    const cases: [input: unknown, message: string][] = [
      [{ values: [1], tags: ['canary'] }, '; Field "id" of required type "ID!" was not provided.'],
      [{ id: ['canary'] }, ' at "input.id"; ID cannot represent value.'],
      [
        { id: '1', tags: [' at "canary"; canary', { canary: 'canary' }] },
        ' at "input.tags[1]"; String cannot represent a non string value.',
      ],
      ['canary: canary; canary', '; Expected type "BoxInput" to be an object.'],
    ];
    for (const [input, message] of cases)
      assert.throws(
        () =>
          pipeline.prepare({
            query: 'query($input: BoxInput!) { echo(input: $input) }',
            operationName: null,
            variables: { input },
          }),
        { name: 'Refusal', message: `Variable "$input" got invalid value${message}` },
      );
  });

  test('a document is compiled when it is asked for the second time', async () => {
    const lines: string[] = [];
    const pipeline = pipelineWith({ log: logTo(lines) });
    for (let i = 0; i < 3; i++) await run(pipeline, '{ bug }');
    const stacks = lines.map((line) => (JSON.parse(line) as { err: { stack: string } }).err.stack);
    assert.deepEqual(
      stacks.map((stack) => stack.includes('compileQuery')),
      [false, true, true],
    );
  });

  test('what cannot be compiled is interpreted, and said once', async () => {
    const lines: string[] = [];
    const pipeline = pipelineWith({ log: logTo(lines), compileAtRun: 1, compile: () => ({ errors: [] }) });
    for (let i = 0; i < 3; i++) assert.deepEqual((await run(pipeline, '{ actor }')).data, { actor: 'admin' });
    assert.equal(lines.filter((line) => line.includes('cannot compile')).length, 1);
  });

  test('forgets the documents used longest ago', async () => {
    const pipeline = pipelineFrom(Number.POSITIVE_INFINITY);
    const prepare = (i: number): unknown =>
      pipeline.prepare({ query: `{ a${i}: actor }`, operationName: null, variables: {} }).document;
    const first = prepare(0);
    const second = prepare(1);
    for (let i = 2; i < 500; i++) prepare(i);
    assert.equal(prepare(0), first, 'kept, and now the newest');
    prepare(500);
    assert.equal(prepare(0), first);
    assert.notEqual(prepare(1), second, 'forgotten');
  });
});
