import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FieldNode, type OperationDefinitionNode, parse } from 'graphql';
import { schema } from '../../src/graphql/schema.ts';
import { shareable } from '../../src/graphql/shareable.ts';

function fits(source: string): boolean {
  const [operation] = parse(`subscription { ${source} }`).definitions as [OperationDefinitionNode];
  const [field] = operation.selectionSet.selections as [FieldNode];
  const { extensions } = schema.getSubscriptionType()!.getFields()[field.name.value]!;
  return (extensions['shareable'] as ReturnType<typeof shareable>).fits(schema, field.selectionSet!);
}

test('a subscription is shared where all that it selects changes with its own object', () => {
  assert.ok(fits('vmChanged(id: "x") { __typename id state observed { state at } allowedActions }'));
  assert.ok(
    fits(
      'jobProgress(id: "x") { state progressPercent steps { name done } currentStep { etaMs } error { code message } }',
    ),
  );
  assert.ok(fits('hostChanged(id: "x") { linkState vcpusReserved capabilities }'));
});

test('what depends on other objects, or is asked of a host, runs for each subscriber', () => {
  assert.equal(fits('vmChanged(id: "x") { state host { name } }'), false);
  assert.equal(fits('vmChanged(id: "x") { observed { host { name } } }'), false);
  assert.equal(fits('vmChanged(id: "x") { serialLog }'), false);
  assert.equal(fits('vmChanged(id: "x") { usage { cpuNs } }'), false);
  assert.equal(fits('vmChanged(id: "x") { ... on Vm { host { name } } }'), false);
  assert.equal(fits('jobProgress(id: "x") { target { id } }'), false);
});

test('one that has left its set is not part of the present', () => {
  const { hasLeft } = shareable('Vm');
  assert.equal(hasLeft({ id: 1 }), false);
  assert.equal(hasLeft({ id: 1, left: true }), true);
});
