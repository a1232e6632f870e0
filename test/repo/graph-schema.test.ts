import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type GraphQLArgument,
  type GraphQLInputObjectType,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isIntrospectionType,
  isNonNullType,
  isObjectType,
  isSpecifiedScalarType,
} from 'graphql';
import { committed, print, readableDiff } from '../../schema/print.ts';
import type { ResourceKind } from '../../src/domain/ids.ts';
import { WANTED_NOUNS } from '../../src/graphql/context.ts';
import { schema } from '../../src/graphql/schema.ts';
import { byId, explainPlacementInput, INPUTS } from '../../src/ops/inputs.ts';

const types = Object.values(schema.getTypeMap()).filter(
  (type) => !isIntrospectionType(type) && !isSpecifiedScalarType(type),
);

test('every type, field, argument, input field and enum value has a description', () => {
  const missing: string[] = [];
  const check = (name: string, described: { description?: string | null | undefined }) => {
    if (!described.description?.trim()) missing.push(name);
  };
  for (const type of types) {
    check(type.name, type);
    if (isEnumType(type)) for (const value of type.getValues()) check(`${type.name}.${value.name}`, value);
    if (isInputObjectType(type))
      for (const field of Object.values(type.getFields())) check(`${type.name}.${field.name}`, field);
    if (!isObjectType(type) && !isInterfaceType(type)) continue;
    for (const field of Object.values(type.getFields())) {
      check(`${type.name}.${field.name}`, field);
      for (const argument of field.args) check(`${type.name}.${field.name}(${argument.name})`, argument);
    }
  }
  assert.deepEqual(missing, []);
});

test('the committed public schema is the one that the code builds', async () => {
  const found = await committed('control.graphql');
  const wanted = print(schema);
  assert.ok(found === wanted, readableDiff(found, wanted));
});

test('a difference between schemas is shown by the lines that differ and what surrounds them', () => {
  assert.equal(
    readableDiff('a\nb\nc\nd\ne\nf\ng', 'a\nb\nc\nd\ne\nF\ng'),
    ['…', '  d', '  e', '- f', '+ F', '  g'].join('\n'),
  );
});

test('every mutation takes one input with the fields that its operation checks', () => {
  const wanted = Object.entries(WANTED_NOUNS).flatMap(([kind, noun]) =>
    ['enable', 'disable', 'delete'].map((verb) => [`${verb}${noun}`, byId(kind as ResourceKind)] as const),
  );
  const expected = new Map([...wanted, ...Object.entries(INPUTS)]);
  const mutations = schema.getMutationType()!.getFields();
  assert.deepEqual(Object.keys(mutations).sort(), [...expected.keys()].sort());
  for (const [name, input] of expected) {
    const { args } = mutations[name]!;
    assert.deepEqual(
      args.map((argument: GraphQLArgument) => argument.name),
      ['input'],
      name,
    );
    assertSameFields(`${name[0]!.toUpperCase()}${name.slice(1)}Input`, input);
  }
  assertSameFields('ExplainPlacementInput', explainPlacementInput);
});

function assertSameFields(
  type: string,
  input: { shape: Record<string, { safeParse(value: unknown): { success: boolean } }> },
) {
  const fields = (schema.getType(type) as GraphQLInputObjectType).getFields();
  assert.deepEqual(Object.keys(fields).sort(), Object.keys(input.shape).sort(), type);
  for (const [name, check] of Object.entries(input.shape)) {
    const required = isNonNullType(fields[name]!.type) && fields[name]!.defaultValue === undefined;
    assert.equal(required, !check.safeParse(undefined).success, `${type}.${name}`);
  }
}

// graphql-jit refuses variables that leave out such a field; graphql-js fills it in.
test('no field of an input is non-null with a default', () => {
  for (const type of types) {
    if (!isInputObjectType(type)) continue;
    for (const field of Object.values(type.getFields()))
      assert.ok(!isNonNullType(field.type) || field.defaultValue === undefined, `${type.name}.${field.name}`);
  }
});

test('no plugin wraps a resolver, so a leaf costs one property read', () => {
  for (const type of types) {
    if (!isObjectType(type)) continue;
    for (const field of Object.values(type.getFields()))
      assert.notEqual(field.extensions['pothosResolveWrapped'], true, `${type.name}.${field.name}`);
  }
});

test('whatever has an id is a node', () => {
  const node = schema.getType('Node');
  for (const type of types) {
    if (!isObjectType(type) || !('id' in type.getFields()) || type.name.endsWith('Payload')) continue;
    assert.ok(
      type.getInterfaces().some((parent) => parent === node),
      type.name,
    );
  }
});
