import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import type { QuotaResource } from '../domain/quota.ts';
import { auditQuotas } from './quota-audit.ts';

export interface Drift {
  what:
    | 'host vCPUs'
    | 'host memory MiB'
    | 'storage bytes'
    | 'VMs without reservation'
    | 'reservations without VM'
    | `quota of ${'account' | 'domain'}: ${QuotaResource}`;
  id: number;
  counted: number;
  actual: number;
}

/** Recomputes every counter from first principles, in one consistent view. Reports; repairs nothing. */
export async function auditCounters(db: Kysely<Database>): Promise<Drift[]> {
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .execute(async (tx) => [
      ...(await hosts(tx)),
      ...(await storages(tx)),
      ...(await places(tx)),
      ...(await auditQuotas(tx)),
    ]);
}

async function hosts(db: Kysely<Database>): Promise<Drift[]> {
  const rows = await db
    .selectFrom('host as h')
    .leftJoin('reservation as r', 'r.host_id', 'h.id')
    .select(['h.id', 'h.vcpus_used', 'h.memory_used_mib'])
    .select([
      sql<number>`COALESCE(SUM(r.vcpus), 0)`.as('vcpus'),
      sql<number>`COALESCE(SUM(r.memory_mib), 0)`.as('memory'),
    ])
    .groupBy(['h.id', 'h.vcpus_used', 'h.memory_used_mib'])
    .having(
      sql<boolean>`h.vcpus_used <> COALESCE(SUM(r.vcpus), 0) OR h.memory_used_mib <> COALESCE(SUM(r.memory_mib), 0)`,
    )
    .execute();
  return rows
    .flatMap((row): Drift[] => [
      { what: 'host vCPUs', id: row.id, counted: row.vcpus_used, actual: Number(row.vcpus) },
      { what: 'host memory MiB', id: row.id, counted: row.memory_used_mib, actual: Number(row.memory) },
    ])
    .filter(({ counted, actual }) => counted !== actual);
}

async function storages(db: Kysely<Database>): Promise<Drift[]> {
  const rows = await db
    .selectFrom('primary_storage as p')
    .leftJoin('volume as v', (join) => join.onRef('v.primary_storage_id', '=', 'p.id').on('v.deleted_at', 'is', null))
    .select(['p.id', 'p.bytes_used', sql<number>`COALESCE(SUM(v.size_bytes), 0)`.as('bytes')])
    .groupBy(['p.id', 'p.bytes_used'])
    .having(sql<boolean>`p.bytes_used <> COALESCE(SUM(v.size_bytes), 0)`)
    .execute();
  return rows.map(
    (row): Drift => ({ what: 'storage bytes', id: row.id, counted: row.bytes_used, actual: Number(row.bytes) }),
  );
}

/** A VM that has a host holds exactly one place on it, and no place is held by another. */
async function places(db: Kysely<Database>): Promise<Drift[]> {
  const without = await db
    .selectFrom('vm as v')
    .leftJoin('reservation as r', (join) => join.onRef('r.vm_id', '=', 'v.id').onRef('r.host_id', '=', 'v.host_id'))
    .select('v.id')
    .where('v.host_id', 'is not', null)
    .where('v.deleted_at', 'is', null)
    .where('r.vm_id', 'is', null)
    .execute();
  const stray = await db
    .selectFrom('reservation as r')
    .leftJoin('vm as v', (join) => join.onRef('v.id', '=', 'r.vm_id').onRef('v.host_id', '=', 'r.host_id'))
    .select('r.vm_id')
    .where('v.id', 'is', null)
    .execute();
  return [
    ...without.map(({ id }): Drift => ({ what: 'VMs without reservation', id, counted: 0, actual: 1 })),
    ...stray.map(({ vm_id }): Drift => ({ what: 'reservations without VM', id: vm_id, counted: 1, actual: 0 })),
  ];
}
