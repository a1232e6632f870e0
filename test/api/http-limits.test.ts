import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { suite, test } from 'node:test';
import { getIntrospectionQuery } from 'graphql';
import { startEdge, type TestAnswer } from './http-fixture.ts';

const times = (count: number, part: (index: number) => string): string =>
  Array.from({ length: count }, (_, i) => part(i)).join(' ');
const nested = (depth: number): string => `{ boxes ${'{ children '.repeat(depth - 2)}{ id }${' }'.repeat(depth - 2)} }`;
/** Each fragment spreads the next twice: 2^levels fields. */
const bomb = (levels: number): string =>
  `{ ...F0 } ${times(levels, (i) => `fragment F${i} on Query { ...F${i + 1} ...F${i + 1} }`)} fragment F${levels} on Query { actor }`;

function assertLimit(answer: TestAnswer, message: RegExp, status = 400): void {
  assert.equal(
    answer.body.errors?.[0]?.extensions['code'],
    'LIMIT_EXCEEDED',
    JSON.stringify(answer.body).slice(0, 200),
  );
  assert.match(answer.body.errors![0]!.message, message);
  assert.equal(answer.status, status);
  assert.ok(!('data' in answer.body));
}

suite('Limits before execution', () => {
  const atLimit: [what: string, allowed: string, refused: string, message: RegExp][] = [
    ['depth', nested(15), nested(16), /more than 15 fields deep/],
    [
      'aliases',
      `{ box(id: "a") { ${times(60, (i) => `a${i}: id`)} } }`,
      `{ box(id: "a") { ${times(61, (i) => `a${i}: id`)} } }`,
      /more than the 60 aliases/,
    ],
    [
      'root fields',
      `{ ${times(30, (i) => `a${i}: actor`)} }`,
      `{ ${times(31, (i) => `a${i}: actor`)} }`,
      /31 fields at its root; 30 are allowed/,
    ],
    [
      'tokens',
      `{ boxes { ${times(100, () => 'id')} } } #${'x'.repeat(50)}`,
      `{ boxes { ${times(4_000, (i) => `f${i}`)} } }`,
      /more than the 4000 tokens/,
    ],
    [
      'length',
      `{ actor } #${'x'.repeat(99_989)}`,
      `{ actor } #${'x'.repeat(99_990)}`,
      /100001 characters; 100000 are allowed/,
    ],
    [
      'brackets',
      `{ echo(input: { id: "a" }) }`,
      `{ echo(input: ${'['.repeat(61)}${']'.repeat(61)}) }`,
      /brackets more than 60 deep/,
    ],
    [
      'repeated fields',
      `{ boxes { ${times(200, () => 'id')} } }`,
      `{ boxes { ${times(202, () => 'id')} } }`,
      /more than 20000 pairs/,
    ],
    ['cost', 'query($first: Int = 1) { boxes(first: $first) { id } }', '', /./],
  ];
  for (const [what, allowed, refused, message] of atLimit)
    test(`allows ${what} at the limit and refuses one above`, async () => {
      await using edge = await startEdge();
      const answer = await edge.ask(allowed, { first: 999 });
      assert.equal(answer.body.errors, undefined, JSON.stringify(answer.body).slice(0, 300));
      if (refused) assertLimit(await edge.ask(refused), message);
      else assertLimit(await edge.ask(allowed, { first: 1_000 }), /may cost 100001; 100000 is allowed/);
    });

  test('puts the cost into the answer', async () => {
    await using edge = await startEdge();
    const answer = await edge.ask('query($first: Int) { boxes(first: $first) { id } }', { first: 20 });
    assert.deepEqual(answer.body.extensions, { cost: 2001 });
  });

  test('counts variables by number and by depth', async () => {
    await using edge = await startEdge();
    const query = 'query($input: BoxInput!) { echo(input: $input) }';
    assertLimit(
      await edge.ask(query, { input: { id: 'a', values: Array(10_000).fill(1) } }),
      /more than the 10000 values/,
    );
    let deep: unknown = 1;
    for (let i = 0; i < 5_000; i++) deep = [deep];
    assertLimit(await edge.ask(query, { input: deep as object }), /more than 20 deep/);
    assert.equal((await edge.ask(query, { input: { id: 'a', values: Array(9_000).fill(1) } })).status, 200);
  });

  test('refuses the same variable twice', async () => {
    await using edge = await startEdge();
    const answer = await edge.ask('query($id: ID!, $id: ID!) { box(id: $id) { id } }', { id: 'a' });
    assert.match(answer.body.errors![0]!.message, /only one variable named "\$id"/);
  });

  test('refuses a body above the limit, told or streamed, with 413', async () => {
    await using edge = await startEdge();
    const body = JSON.stringify({ query: '{ actor }', variables: { pad: 'x'.repeat(1_000_000) } });
    assertLimit(await edge.post(body), /larger than the 1000000 bytes/, 413);
    const status = await new Promise<number>((resolve, reject) => {
      const request = httpRequest(`${edge.server.url}/graphql`, {
        method: 'POST',
        headers: { authorization: 'Bearer secret-token', 'content-type': 'application/json' },
      });
      request.on('response', (response) => resolve(response.resume().statusCode!)).on('error', reject);
      request.write(body);
    });
    assert.equal(status, 413);
    assert.equal((await edge.ask('{ actor }')).status, 200);
  });

  test('answers the standard introspection query, and refuses an introspection that multiplies', async () => {
    await using edge = await startEdge();
    const standard = await edge.ask(
      getIntrospectionQuery({ inputValueDeprecation: true, specifiedByUrl: true, oneOf: true }),
    );
    assert.equal(standard.body.errors, undefined);
    const circular = '{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }';
    const answer = await edge.ask(circular);
    assert.match(answer.body.errors![0]!.message, /Maximum introspection depth exceeded/);
    assertLimit(
      await edge.ask(`{ __schema { types ${'{ ofType '.repeat(20)}{ name }${' }'.repeat(20)} } }`),
      /more than 20 fields deep/,
    );
  });

  const attacks: [title: string, query: string][] = [
    ['10,000 levels', `${'{ children '.repeat(10_000)}`],
    ['10,000 nested lists', `{ echo(input: ${'['.repeat(10_000)}`],
    ['50,000 aliases', `{ ${times(50_000, (i) => `a${i}: actor`)} }`],
    ['3,900 times the same field', `{ ${times(3_900, () => 'actor')} }`],
    ['1,000 copies of a nested selection', `{ ${times(900, () => 'rows { c0 }')} }`],
    ['a bomb of fragments', bomb(60)],
    [
      'a bomb of empty fragments',
      `{ ...F0 } ${times(400, (i) => `fragment F${i} on Query { ...F${i + 1} ...F${i + 1} }`)}`,
    ],
    ['a cycle of fragments at one level', '{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }'],
    ['a cycle of fragments over levels', '{ boxes { ...A } } fragment A on Box { children { ...A } parent { ...A } }'],
    [
      'a cycle nobody spreads',
      '{ actor } fragment A on Box { a: children { ...A } b: children { ...A } c: children { ...A } }',
    ],
    ['a megabyte of spaces', `{ actor ${' '.repeat(900_000)} }`],
    ['900 kB of one string', `{ echo(input: "${'x'.repeat(900_000)}") }`],
    ['a thousand directives', `{ actor ${times(1_000, () => '@skip(if: false)')} }`],
    ['a thousand operations', times(900, (i) => `query Q${i} { actor }`)],
  ];
  for (const [title, query] of attacks)
    test(`refuses ${title} in a moment and lives on`, async () => {
      await using edge = await startEdge();
      await edge.ask('{ actor }');
      const began = process.cpuUsage();
      const answer = await edge.ask(query);
      const { user, system } = process.cpuUsage(began);
      assert.ok(answer.body.errors?.length, 'refused');
      assert.ok(answer.body.errors.length <= 51, 'not an error for each of them');
      assert.ok(!answer.body.data);
      assert.ok((user + system) / 1_000 < 300, `took ${(user + system) / 1_000} ms of CPU`);
      assert.deepEqual((await edge.ask('{ actor }')).body.data, { actor: 'admin' });
    });

  test('leaves room for a rich page of a console', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const box = 'id value label children { ...Line parent { ...Line } }';
    const query = `query Dashboard { ${times(25, (i) => `b${i}: boxes(first: 3) { ${box} c: children { id } }`)} } fragment Line on Box { id value label }`;
    const answer = await edge.ask(query);
    assert.equal(answer.body.errors, undefined);
  });
});
