import {
  type GraphQLSchema,
  getNamedType,
  isInterfaceType,
  isLeafType,
  isObjectType,
  Kind,
  type SelectionSetNode,
} from 'graphql';
import type { Leaving } from './watch.ts';

/**
 * `extensions.shareable` of a subscription whose messages are each the state of one object: identical subscriptions of
 * one scope run once (http/fan-out.ts).
 */
export function shareable(typeName: string) {
  return {
    /** The message is the last about an object that has left the set. */
    hasLeft: (message: unknown): boolean => (message as Leaving).left === true,
    /**
     * Whether all that is selected changes only with messages of the object. What hangs on others' state, or on a host
     * that is asked, would be old for whoever joins later.
     */
    fits: (schema: GraphQLSchema, selection: SelectionSetNode): boolean => fits(schema, typeName, selection),
  };
}

function fits(schema: GraphQLSchema, typeName: string, { selections }: SelectionSetNode): boolean {
  const type = schema.getType(typeName);
  const fields = isObjectType(type) || isInterfaceType(type) ? type.getFields() : {};
  return selections.every((node) => {
    // Those who spread a fragment run alone: it is not worth following.
    if (node.kind !== Kind.FIELD) return false;
    const field = fields[node.name.value];
    if (!field) return node.name.value === '__typename';
    const named = getNamedType(field.type);
    if (isLeafType(named)) return field.extensions['cost'] === undefined;
    return (
      field.extensions['ofRow'] === true &&
      fits(schema, named.name, node.selectionSet ?? { kind: Kind.SELECTION_SET, selections: [] })
    );
  });
}
