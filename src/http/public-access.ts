import { type DocumentNode, getOperationAST, Kind } from 'graphql';

/** Fields at the root that may be asked without a token, by the kind of operation. Everything else may not. */
export type PublicFields = Partial<Record<'query' | 'mutation', readonly string[]>>;

/**
 * Whether somebody who has shown no token may ask this: one public field, by its name, and nothing beside it. Looked at
 * before the document is validated, so that he learns nothing of the schema by asking for what it has not.
 */
export function isPublic(document: DocumentNode, operationName: string | null, allowed: PublicFields): boolean {
  const operation = getOperationAST(document, operationName);
  if (!operation || operation.operation === 'subscription') return false;
  const fields = operation.selectionSet.selections.filter(
    (node) => node.kind !== Kind.FIELD || node.name.value !== '__typename',
  );
  const [field] = fields;
  // One: what is guessed is counted per field, and nobody may guess more often by asking twice at once.
  if (fields.length !== 1 || field?.kind !== Kind.FIELD) return false;
  return allowed[operation.operation]?.includes(field.name.value) ?? false;
}
