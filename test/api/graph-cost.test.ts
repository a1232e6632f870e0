import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'graphql';
import { costOf } from '../../src/graphql/cost.ts';
import { schema } from '../../src/graphql/schema.ts';

const cost = (source: string, variables: Record<string, unknown> = {}, operation?: string) =>
  costOf(schema, parse(source), operation, variables);

test('leaves are free, an object costs one, a list as many times as its page is long', () => {
  assert.equal(cost('{ viewer { name kind } }').cost, 1);
  assert.equal(cost('{ vms { nodes { id name } } }').cost, 1 + 50);
  assert.equal(cost('{ vms(first: 100) { nodes { id host { name } } } }').cost, 1 + 100 * 2);
  assert.equal(cost('{ vms(last: 3) { nodes { id } } }').cost, 1 + 3);
  assert.equal(cost('{ vms(first: 0) { nodes { id } totalCount } }').cost, 1);
  assert.equal(cost('{ vms(first: 9999) { nodes { id } } }').cost, 1 + 500);
  assert.equal(cost('{ zones(first: 2) { nodes { pods(first: 3) { nodes { id } } } } }').cost, 1 + 2 * (1 + 1 + 3));
  assert.equal(cost('{ nodes(ids: ["a", "b", "c"]) { id } }').cost, 1);
  assert.equal(cost('{ nodes(ids: ["a", "b", "c"]) { ... on Vm { host { name } } } }').cost, 1 + 3);
  assert.equal(
    cost('query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Vm { host { name } } } }', { ids: ['a', 'b'] }).cost,
    1 + 2,
  );
  assert.equal(cost('{ vm(id: "x") { serialLog } }').cost, 1 + 50);
  assert.equal(cost('{ vm(id: "x") { volumes { primaryStorage { name } } } }').cost, 1 + 1 + 5);
});

test('the length of a page may come from a variable or its default', () => {
  const source = 'query ($n: Int = 10) { vms(first: $n) { nodes { id } } }';
  assert.equal(cost(source).cost, 1 + 10);
  assert.equal(cost(source, { n: 20 }).cost, 1 + 20);
  assert.equal(cost(source, { n: 'x' }).cost, 1 + 10);
  assert.equal(cost('query ($n: Int) { vms(first: $n) { nodes { id } } }').cost, 1 + 50);
  const document = parse(source);
  assert.equal(costOf(schema, document, null, { n: 1 }).cost, 2);
  assert.equal(costOf(schema, document, null, { n: 2 }).cost, 3);
});

test('fragments count where they are spread', () => {
  const {
    depth,
    aliases,
    rootFields,
    cost: total,
  } = cost(
    `
    query Q { ...R other: zone(id: "x") { ...Z } }
    fragment R on Query { zone(id: "x") { ...Z } viewer { name } }
    fragment Z on Zone { called: name ... on Zone { vms(first: 2) { nodes { id } } } }
    query Unused { viewer { name } }`,
    {},
    'Q',
  );
  assert.deepEqual(
    { depth, aliases, rootFields, total },
    { depth: 4, aliases: 3, rootFields: 3, total: 2 * (1 + 1 + 2) + 1 },
  );
});

test('fragments that double at each level take no time, and cost what they would', () => {
  const levels = 200;
  const fragments = Array.from(
    { length: levels },
    (_, i) =>
      `fragment F${i} on Zone { a: pods(first: 2) { nodes { zone { ...F${i + 1} } } } b: pods(first: $n) { nodes { zone { ...F${i + 1} } } } }`,
  );
  const source = `query ($n: Int) { zone(id: "x") { ...F0 } } ${fragments.join('\n')} fragment F${levels} on Zone { id }`;
  const found = cost(source, { n: 3 });
  assert.ok(found.cost > 1e100);
  assert.equal(found.depth, 1 + levels * 3 + 1);
  const flat = `{ ...G0 } ${Array.from({ length: 2_000 }, (_, i) => `fragment G${i} on Query { ...G${i + 1} ...G${i + 1} }`).join(' ')} fragment G2000 on Query { a: viewer { name } }`;
  assert.equal(cost(flat).rootFields, Number.POSITIVE_INFINITY);
});

test('a fragment that spreads itself costs more than any limit', () => {
  const {
    cost: total,
    depth,
    aliases,
  } = cost(
    '{ zone(id: "x") { ...A } } fragment A on Zone { pods(first: 0) { nodes { zone { ...B } } } ...B } fragment B on Zone { ...A }',
  );
  assert.deepEqual(
    [total, depth, aliases],
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
  );
});

test('what is not in the schema, or not in the document, costs nothing and breaks nothing', () => {
  assert.equal(cost('{ nonsense { a { b } } ...Missing ... on Nowhere { a } }').cost, 0);
  assert.deepEqual(cost('{ viewer { name } }', {}, 'Other'), { cost: 0, depth: 0, aliases: 0, rootFields: 0 });
});
