import type { Kysely } from 'kysely';
import type { Database } from '../db/tables.ts';
import {
  domainOwners,
  ownersOf,
  type QuotaOwner,
  type QuotaPath,
  type QuotaRow,
  quotaTable,
  type ResourceUsage,
  usageOf,
} from '../domain/quota.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';

/** A quota as the graph shows it. */
export interface QuotaView {
  owner: QuotaOwner;
  generation: number;
  resources: ResourceUsage[];
}

/** Each with what is left above it: one statement for the accounts of all, and one for the domains. */
export async function readQuotas(db: Kysely<Database>, paths: readonly QuotaPath[]): Promise<(QuotaView | null)[]> {
  const rows = new Map<string, QuotaRow>();
  for (const kind of ['account', 'domain'] as const) {
    const ids = new Set(paths.flat().flatMap((owner) => (owner.kind === kind ? owner.id : [])));
    if (ids.size === 0) continue;
    const found: QuotaRow[] = await db
      .selectFrom(quotaTable({ kind, id: 0 }))
      .selectAll()
      .where('id', 'in', [...ids])
      .execute();
    for (const row of found) rows.set(`${kind} ${row.id}`, row);
  }
  return paths.map(([owner, ...above]) => {
    const own = rows.get(`${owner.kind} ${owner.id}`);
    if (!own) return null;
    const others = above.flatMap(({ kind, id }) => rows.get(`${kind} ${id}`) ?? []);
    return { owner, generation: own.generation, resources: usageOf([own, ...others]) };
  });
}

/** Of an account or domain that the caller has found; those of a list are read together. */
export const quotaOf = (context: GraphContext, { kind, id }: QuotaOwner): Promise<QuotaView | null> =>
  loadersOf(context).below(`quota of ${kind}`, id, async (ids) =>
    readQuotas(context.db, await Promise.all(ids.map((each) => pathOf(context, { kind, id: each })))),
  );

export async function pathOf(context: GraphContext, { kind, id }: QuotaOwner): Promise<QuotaPath> {
  const { inventory } = context;
  if (kind === 'domain') return domainOwners((await loadersOf(context).get('domain', id)).path);
  await inventory.know([id]);
  return ownersOf(id, inventory);
}
