import { brandWithType } from '@pothos/core';
import { sql } from 'kysely';
import { visible } from '../db/visible.ts';
import { mustBeKnown } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId, type ResourceKind } from '../domain/ids.ts';
import { builder, type GraphTypes } from './builder.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';
import { decodeLogId, parseId, uidOf } from './public-id.ts';
import { AuditRecordRef, EventRef, REF_OF } from './refs.ts';
import type { Row } from './rows.ts';
import { selected } from './rows.ts';

export const NodeRef = builder.nodeInterfaceRef();

/** The `id` of a type whose rows have a uid. */
export function idField<K extends ResourceKind>(t: PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, Row<K>>, kind: K) {
  return t.id({
    description: 'The public id, the same for ever.',
    resolve: (row) => encodeId(kind, (row as unknown as { uid: Buffer }).uid),
  });
}

/** Says which type a row is of, where the graph only knows that it is a node. */
function asNode<K extends ResourceKind>(kind: K, row: Row<K>): Row<K> {
  brandWithType(row, REF_OF[kind].name as never);
  return row;
}

/** The object that a kind and number name, as a node; null: it is there no more. */
export function nodeOf(context: GraphContext, kind: ResourceKind, id: number): unknown {
  const row = loadersOf(context).find(kind, id);
  return row instanceof Promise ? row.then((found) => found && asNode(kind, found)) : asNode(kind, row);
}

async function nodeById(context: GraphContext, id: string, path: string[]): Promise<unknown> {
  const numbered = decodeLogId(id);
  if (numbered) return rowOfLog(context, numbered.log, numbered.seq);
  const { kind, uid } = parseId(id, path);
  const row = await loadersOf(context).findByUid(kind, uid);
  return row && asNode(kind, row);
}

const REF_OF_LOG = { event: EventRef, audit: AuditRecordRef } as const;

async function rowOfLog(context: GraphContext, log: keyof typeof REF_OF_LOG, seq: number): Promise<unknown> {
  mustBeKnown(context.actor);
  const { rows } = await sql<object>`
    select ${selected(log)} from ${sql.table(log)}
    where seq = ${seq} and ${visible(context.actor, log)}`.execute(context.db);
  const row = rows[0] ?? null;
  if (row) brandWithType(row, REF_OF_LOG[log].name as never);
  return row;
}

builder.queryFields((t) => ({
  node: t.field({
    type: NodeRef,
    nullable: true,
    description: 'The object with this id, deleted or not; null when there is none.',
    args: { id: t.arg.id({ required: true, description: 'A public id of any kind.' }) },
    resolve: (_root, { id }, context) => nodeById(context, id, ['id']) as never,
  }),
  nodes: t.field({
    type: [NodeRef],
    nullable: { list: false, items: true },
    description: 'The objects with these ids, in their order; null where there is none.',
    args: { ids: t.arg.idList({ required: true, description: 'Public ids of any kind, 100 at most.' }) },
    extensions: { cost: { own: 1, list: true } },
    resolve: (_root, { ids }, context) => nodesById(context, ids) as never,
  }),
}));

const MAX_NODES = 100;

async function nodesById(context: GraphContext, ids: readonly string[]): Promise<unknown[]> {
  if (ids.length > MAX_NODES)
    throw new VirtgraphError({ code: 'INVALID_INPUT', message: `At most ${MAX_NODES} ids.`, path: ['ids'] });
  return Promise.all(ids.map((id, at) => nodeById(context, id, ['ids', String(at)])));
}

/** A look-up of one kind by its public id, for the root. */
export function lookUp<K extends ResourceKind>(t: PothosSchemaTypes.QueryFieldBuilder<GraphTypes, object>, kind: K) {
  const ref = REF_OF[kind];
  return t.field({
    type: ref as (typeof REF_OF)['vm'],
    nullable: true,
    description: `The ${ref.name} with this id, deleted or not; null when there is none.`,
    args: { id: t.arg.id({ required: true, description: `The id of a ${ref.name}.` }) },
    resolve: (_root, { id }, context) => loadersOf(context).findByUid(kind, uidOf(kind, id, ['id'])) as never,
  });
}
