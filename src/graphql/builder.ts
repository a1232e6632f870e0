import SchemaBuilder from '@pothos/core';
import RelayPlugin from '@pothos/plugin-relay';
import type { GraphContext } from './context.ts';

interface OwnTypes {
  Context: GraphContext;
  DefaultFieldNullability: false;
  Scalars: {
    ID: { Input: string; Output: string };
    DateTime: { Input: Date; Output: Date | string };
    BigInt: { Input: bigint; Output: number | bigint | string };
  };
}

/** What Pothos makes of them; for functions that take one of its field builders. */
export type GraphTypes = PothosSchemaTypes.ExtendDefaultTypes<OwnTypes>;

/**
 * Rights are checked by ops, loaders and the SQL of lists, and inputs by ops; so no plugin wraps a field, and a leaf
 * costs one property read.
 */
export const builder = new SchemaBuilder<OwnTypes>({
  plugins: [RelayPlugin],
  defaultFieldNullability: false,
  relay: {
    cursorType: 'String',
    // The plugin's own look-ups and ids are promises: node.ts has ones that cost a list of a hundred nothing.
    nodeQueryOptions: false,
    nodesQueryOptions: false,
    nodeTypeOptions: { description: 'Anything with a public id.' },
    idFieldOptions: { description: 'The public id, the same for ever: `vm_06bk…`.' },
    pageInfoTypeOptions: { description: 'Where a page stands in its list.' },
    hasNextPageFieldOptions: { description: 'More follow: ask with `after: endCursor`.' },
    hasPreviousPageFieldOptions: { description: 'Some come before: ask with `before: startCursor`.' },
    startCursorFieldOptions: { description: 'Of the first of the page; null when the page is empty.' },
    endCursorFieldOptions: { description: 'Of the last of the page; null when the page is empty.' },
    pageInfoFieldOptions: { description: 'Where this page stands in the list.' },
    cursorFieldOptions: { description: 'Opaque; for `after` and `before` of the same list in the same order.' },
  },
});
