import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import { domainOwners, QUOTA, QUOTA_RESOURCES, type QuotaOwner, type QuotaRow, quotaTable } from '../domain/quota.ts';
import type { Drift } from './audit.ts';

/** What an account or domain without a row of its own is said to count: nothing could be made in it. */
const NO_ROW = -1;

type Sums = Record<(typeof QUOTA)[keyof typeof QUOTA]['used'], number>;
const NOTHING = Object.fromEntries(QUOTA_RESOURCES.map((resource) => [QUOTA[resource].used, 0])) as Sums;

/** Counts anew what lives: of each account, and of each domain with all below it. */
export async function auditQuotas(db: Kysely<Database>): Promise<Drift[]> {
  const living = await ofAccounts(db);
  const accounts = await db
    .selectFrom('account')
    .innerJoin('domain', 'domain.id', 'account.domain_id')
    .select(['account.id', 'domain.path'])
    .execute();
  const domains = await db.selectFrom('domain').select('id').execute();
  const sums = new Map<number, Sums>();
  for (const { id, path } of accounts) {
    const own = living.get(id);
    if (own) for (const domain of domainOwners(path)) sums.set(domain.id, plus(sums.get(domain.id) ?? NOTHING, own));
  }
  return [...(await drift(db, 'account', accounts, living)), ...(await drift(db, 'domain', domains, sums))];
}

async function ofAccounts(db: Kysely<Database>): Promise<Map<number, Sums>> {
  const { rows } = await sql<{ account_id: number } & Record<keyof Sums, number | string>>`
    SELECT account_id, SUM(vms) AS vms_used, SUM(vcpus) AS vcpus_used, SUM(memory_mib) AS memory_used_mib,
      SUM(volumes) AS volumes_used, SUM(primary_bytes) AS primary_bytes_used, SUM(templates) AS templates_used,
      SUM(secondary_bytes) AS secondary_bytes_used
    FROM (
      SELECT account_id, COUNT(*) AS vms, SUM(vcpus) AS vcpus, SUM(memory_mib) AS memory_mib, 0 AS volumes,
        0 AS primary_bytes, 0 AS templates, 0 AS secondary_bytes
      FROM vm WHERE deleted_at IS NULL GROUP BY account_id
      UNION ALL
      SELECT account_id, 0, 0, 0, COUNT(*), SUM(size_bytes), 0, 0
      FROM volume WHERE deleted_at IS NULL GROUP BY account_id
      UNION ALL
      SELECT account_id, 0, 0, 0, 0, 0, COUNT(*), COALESCE(SUM(file_bytes), 0)
      FROM template WHERE deleted_at IS NULL AND account_id IS NOT NULL GROUP BY account_id
    ) AS living
    GROUP BY account_id`.execute(db);
  return new Map(rows.map(({ account_id, ...sums }) => [account_id, plus(NOTHING, sums)]));
}

async function drift(
  db: Kysely<Database>,
  kind: QuotaOwner['kind'],
  owners: { id: number }[],
  living: Map<number, Sums>,
): Promise<Drift[]> {
  const rows: QuotaRow[] = await db
    .selectFrom(quotaTable({ kind, id: 0 }))
    .selectAll()
    .execute();
  const counted = new Map(rows.map((row) => [row.id, row]));
  return owners.flatMap(({ id }) =>
    QUOTA_RESOURCES.map((resource): Drift => {
      const { used } = QUOTA[resource];
      return {
        what: `quota of ${kind}: ${resource}`,
        id,
        counted: counted.get(id)?.[used] ?? NO_ROW,
        actual: (living.get(id) ?? NOTHING)[used],
      };
    }).filter((one) => one.counted !== one.actual),
  );
}

/** A sum in SQL comes as text. */
const plus = (a: Sums, b: Record<keyof Sums, number | string>): Sums =>
  Object.fromEntries(Object.entries(a).map(([column, n]) => [column, n + Number(b[column as keyof Sums])])) as Sums;
