import { type CompiledQuery, type Kysely, type RawBuilder, sql } from 'kysely';
import { QUOTA } from '../domain/quota.ts';
import type { Database } from './tables.ts';
import type {
  Absent,
  Change,
  Computed,
  Expect,
  Hold,
  Insert,
  NewAudit,
  NewEvent,
  Patch,
  PatchTable,
  Rebase,
  Refusal,
  Remove,
  Take,
  Transition,
} from './transition.ts';

/** One statement with how many rows it must hit and what it means if it doesn't. */
export interface Statement {
  query: CompiledQuery;
  mustHit: number | null;
  otherwise: Refusal;
}

/**
 * The order in which every writer locks: jobs first, so that a stale worker stops before it has touched anything else;
 * then rows that only a job's owner locks; parents, shared; inserts, which nobody else can see; counted rows last, for
 * they are the hottest, in ascending id.
 */
const PATCH_ORDER: PatchTable[] = [
  'job',
  'job_step',
  'vm',
  'volume',
  'template',
  'host_join_token',
  'domain',
  'account',
  'role',
  'user',
  'api_key',
  'project_member',
  'session',
  'identity_provider',
  'zone',
  'pod',
  'cluster',
  'offering',
  'primary_storage',
  'host',
  // Only who holds its host changes it.
  'host_certificate',
  'account_quota',
  'domain_quota',
];
const HOLD_ORDER: Hold['table'][] = [
  'domain',
  'account',
  'role',
  'user',
  'identity_provider',
  'zone',
  'pod',
  'cluster',
  'offering',
  'template',
  'primary_storage',
];

/** Everything up to the commit, without the change feed. */
export function statementsFor(db: Kysely<Database>, transitions: Transition[]): Statement[] {
  const writes = transitions.flatMap((t) => t.writes);
  const patches = writes.filter((w) => w.op === 'patch');
  return [
    ...PATCH_ORDER.flatMap((table) => patchStatements(db, table, patches)),
    ...writes.filter((w) => w.op === 'rebase').flatMap((w) => rebaseStatements(db, w)),
    ...holdStatements(
      db,
      writes.filter((w) => w.op === 'hold'),
    ),
    ...expectStatements(
      db,
      writes.filter((w) => w.op === 'expect'),
    ),
    ...writes.filter((w) => w.op === 'absent').map((w) => absentStatement(db, w)),
    ...insertStatements(
      db,
      writes.filter((w) => w.op === 'insert'),
    ),
    ...removeStatements(
      db,
      writes.filter((w) => w.op === 'remove'),
    ),
    ...takeStatements(
      db,
      writes.filter((w) => w.op === 'take'),
    ),
  ];
}

/**
 * The change feed, the last thing before COMMIT: `feed_head` hands out consecutive numbers under its row lock, so
 * `seq` is the order of commits and has no gaps. A reader of `seq > cursor` misses nothing.
 *
 * @see docs/adr/0002-dense-change-feed.md
 */
export function feedStatements(db: Kysely<Database>, transitions: Transition[], origin: string): CompiledQuery[] {
  const changes = distinctChanges(transitions);
  const events = transitions.flatMap((t) => t.events);
  const audits = transitions.flatMap((t) => t.audits);
  const total = changes.length + events.length;
  if (total + audits.length === 0) return [];
  const seqOf = (index: number): RawBuilder<number> => sql`LAST_INSERT_ID() - ${total - 1 - index}`;
  const statements: CompiledQuery[] = [
    db
      .updateTable('feed_head')
      .set({
        seq: sql`LAST_INSERT_ID(seq + ${total})`,
        ...(audits.length === 0 ? {} : { audit_seq: sql`audit_seq + ${audits.length}` }),
      })
      .compile(),
  ];
  if (changes.length > 0) {
    const rows = changes.map(({ kind, id }, i) => ({ seq: seqOf(i), kind, resource_id: id, origin }));
    statements.push(db.insertInto('change').values(rows).compile());
  }
  if (events.length > 0) {
    const rows = events.map((event, i) => eventRow(event, seqOf(changes.length + i)));
    statements.push(db.insertInto('event').values(rows).compile());
  }
  if (audits.length > 0) {
    // A count of its own, so that a number that is missing is a record that somebody removed.
    const rows = audits.map((audit, i) => auditRow(audit, auditSeq(audits.length - 1 - i)));
    statements.push(db.insertInto('audit').values(rows).compile());
  }
  return statements;
}

const eventRow = (event: NewEvent, seq: RawBuilder<number>) => ({
  seq,
  type: event.type,
  subject_kind: event.subject.kind,
  subject_id: event.subject.id,
  account_id: event.accountId ?? null,
  job_id: event.jobId,
  actor: event.actor,
  reason: event.reason,
  changes: JSON.stringify(event.changes),
});

const auditSeq = (back: number): RawBuilder<number> => sql`(SELECT audit_seq FROM feed_head) - ${back}`;

const auditRow = (audit: NewAudit, seq: RawBuilder<number>) => ({
  seq,
  action: audit.action,
  outcome: audit.outcome,
  code: audit.code,
  actor: audit.actor,
  user_id: audit.userId,
  credential: audit.credential,
  address: audit.address,
  account_id: audit.accountId,
  subject_kind: audit.subject?.kind ?? null,
  subject_id: audit.subject?.id ?? null,
  asked_id: audit.askedId ?? null,
  job_id: audit.jobId,
  reason: audit.reason,
  changes: JSON.stringify(audit.changes),
  request_id: audit.requestId,
});

/** Each changed resource once, in the order of first mention. */
export function distinctChanges(transitions: Transition[]): Change[] {
  const seen = new Map<string, Change>();
  for (const { changes } of transitions) for (const c of changes) seen.set(`${c.kind} ${c.id}`, c);
  return [...seen.values()];
}

/** The same, and the hosts that must hear of a command: what is to be read again where nobody knows whether it was written. */
export const uncertainChanges = (transitions: Transition[]): Change[] =>
  distinctChanges([
    ...transitions,
    ...transitions.map((t) => ({ ...t, changes: t.commands.map((c) => ({ kind: 'command' as const, id: c.hostId })) })),
  ]);

function patchStatements(db: Kysely<Database>, table: PatchTable, patches: Patch[]): Statement[] {
  const mine = patches.filter((p) => p.table === table);
  const groups = byShape(mine, (p) => `${hasClaim(p)} ${JSON.stringify(sharedGuard(p))} ${JSON.stringify(p.set)}`);
  const key = table === 'job_step' ? 'job_id' : 'id';
  return groups.map((group) => {
    const { set, otherwise } = group[0]!;
    const ids = distinctAscending(group.map((p) => p.id));
    let query = db
      .updateTable(table as 'job')
      .set(columns(set))
      .where(sql.ref(key), 'in', ids);
    const claims = group.filter(hasClaim);
    // Beside the list of ids, which is what the index is used for.
    if (claims.length > 0)
      query = query.where(sql<boolean>`(${sql.ref(key)}, active_job_id) in (${sql.join(claims.map(pairOf))})`);
    for (const [column, value] of Object.entries(sharedGuard(group[0]!))) {
      if (value === null) query = query.where(sql.ref(column), 'is', null);
      else if (Array.isArray(value)) query = query.where(sql.ref(column), 'in', value);
      else query = query.where(sql.ref(column), '=', value);
    }
    // Not the distinct ids: the same move twice in one batch, as when a host reports twice at once, is refused, so that
    // halving writes it once and calls the other stale.
    return { query: query.compile(), mustHit: group.length, otherwise };
  });
}

/** Each claim names another job, so moves that are alike but for it still go into one statement. */
const hasClaim = (patch: Patch): boolean => typeof patch.guard['active_job_id'] === 'number';
const pairOf = (patch: Patch): RawBuilder<unknown> => sql`(${patch.id}, ${patch.guard['active_job_id']})`;

function sharedGuard(patch: Patch): Record<string, unknown> {
  if (!hasClaim(patch)) return patch.guard;
  const { active_job_id: _, ...shared } = patch.guard;
  return { ...shared };
}

function holdStatements(db: Kysely<Database>, holds: Hold[]): Statement[] {
  return HOLD_ORDER.flatMap((table) =>
    byShape(
      holds.filter((h) => h.table === table),
      (h) => `${h.enabled} ${JSON.stringify(h.guard)}`,
    ).map((group) => {
      const { enabled, guard } = group[0]!;
      const ids = distinctAscending(group.map((h) => h.id));
      let query = db
        .selectFrom(table as 'zone')
        .select('id')
        .where('id', 'in', ids)
        .where('deleted_at', 'is', null)
        .orderBy('id');
      if (enabled) query = query.where('wanted_state', '=', 'ENABLED');
      for (const [column, value] of Object.entries(guard)) query = query.where(sql.ref(column), '=', value);
      // LOCK IN SHARE MODE is the one spelling that MariaDB and MySQL share.
      return {
        query: query.modifyEnd(sql`LOCK IN SHARE MODE`).compile(),
        mustHit: ids.length,
        otherwise: Object.keys(guard).length === 0 ? ('gone' as const) : ('stale' as const),
      };
    }),
  );
}

/** The domain that moves has its new path already: it is a patch of its own. */
const rebaseStatements = (db: Kysely<Database>, { from, to }: Rebase): Statement[] =>
  (['domain', 'account_quota'] as const).map((table) => ({
    query: db
      .updateTable(table)
      .set({ path: sql`concat(${to}, substring(path, ${from.length + 1}))` })
      .where('path', 'like', `${from}%`)
      .compile(),
    mustHit: null,
    otherwise: 'stale' as const,
  }));

function expectStatements(db: Kysely<Database>, expects: Expect[]): Statement[] {
  return byShape(expects, (e) => `${e.table} ${JSON.stringify(e.guard)}`).map((group) => {
    const { table, guard } = group[0]!;
    const ids = distinctAscending(group.map((e) => e.id));
    let query = db.selectFrom(table).select('id').where('id', 'in', ids);
    for (const [column, value] of Object.entries(guard)) query = query.where(sql.ref(column), '=', value);
    return { query: query.compile(), mustHit: ids.length, otherwise: 'stale' as const };
  });
}

function absentStatement(db: Kysely<Database>, { table, column, id, beside, except }: Absent): Statement {
  let query = db
    .selectFrom(table as 'vm')
    .select('id')
    .where(sql.ref(column), '=', id)
    .where('deleted_at', 'is', null)
    .limit(1)
    .offset(beside);
  if (except !== null) query = query.where('id', '!=', except);
  return { query: query.compile(), mustHit: 0, otherwise: 'stale' };
}

function insertStatements(db: Kysely<Database>, inserts: Insert[]): Statement[] {
  return byShape(inserts, (i) => `${i.table} ${Object.keys(i.row).join()} ${i.orExists}`).map((group) => {
    const { table, row, orExists } = group[0]!;
    let query = db.insertInto(table as 'change').values(group.map((i) => columns(i.row) as never));
    if (orExists) {
      const column = Object.keys(row)[0]!;
      query = query.onDuplicateKeyUpdate({ [column]: sql.ref(column) } as never);
    }
    return { query: query.compile(), mustHit: orExists ? null : group.length, otherwise: 'stale' };
  });
}

function removeStatements(db: Kysely<Database>, removes: Remove[]): Statement[] {
  return removes.map(({ table, key }) => {
    let query = db.deleteFrom(table);
    for (const [column, value] of Object.entries(key)) query = query.where(sql.ref(column), '=', value);
    return { query: query.compile(), mustHit: 1, otherwise: 'stale' };
  });
}

const COUNTED: Record<string, { used: string; cap: string }> = {
  bytes: { used: 'bytes_used', cap: 'bytes_cap' },
  hosts: { used: 'hosts_joined', cap: 'hosts_max' },
  // vCPUs and memory of hosts stand in columns of the same names.
  ...Object.fromEntries(Object.values(QUOTA).map((facts) => [facts.amount, facts])),
};

/** What must hold for a counted row to give something. Taking back is always possible. */
const GIVES_WHILE: Record<Take['table'], RawBuilder<boolean>> = {
  primary_storage: sql`deleted_at IS NULL AND wanted_state = 'ENABLED'`,
  host: sql`deleted_at IS NULL AND wanted_state = 'ENABLED'`,
  host_join_token: sql`expires_at > NOW(6)`,
  account_quota: sql`TRUE`,
  domain_quota: sql`TRUE`,
};

const isQuota = (table: Take['table']): boolean => table === 'account_quota' || table === 'domain_quota';

/** One guarded update per counted row for the whole batch, however many VMs land on it. */
function takeStatements(db: Kysely<Database>, takes: Take[]): Statement[] {
  return (Object.keys(GIVES_WHILE) as Take['table'][]).flatMap((table) =>
    sumsById(takes.filter((t) => t.table === table)).map(({ id, place, amounts, taken }) => {
      const set: Record<string, unknown> = {};
      let query = db.updateTable(table as 'host').where('id', '=', id);
      if (place !== undefined) query = query.where(sql.ref('path'), '=', place);
      for (const [name, amount] of Object.entries(amounts)) {
        const column = COUNTED[name]!.used;
        const [used, cap] = [sql.ref(column), sql.ref(COUNTED[name]!.cap)];
        set[column] = sql`${used} + ${amount}`;
        // Only quotas may be without a cap.
        if (taken.has(name)) query = query.where(sql<boolean>`(${cap} IS NULL OR ${used} + ${amount} <= ${cap})`);
        if (amount >= 0) continue;
        // A quota that has lost count keeps nothing from being deleted; room that is in use must not be given twice.
        if (isQuota(table)) set[column] = sql`IF(${used} > ${-amount}, ${used} - ${-amount}, 0)`;
        else query = query.where(sql<boolean>`${used} >= ${-amount}`);
      }
      if (taken.size > 0) query = query.where(GIVES_WHILE[table]);
      return { query: query.set(set).compile(), mustHit: 1, otherwise: 'full' as const };
    }),
  );
}

interface Sum {
  id: number;
  place: string | undefined;
  amounts: Record<string, number>;
  /** What somebody takes of, even if others give back more: each must be one who could take it after them. */
  taken: Set<string>;
}

function sumsById(takes: Take[]): Sum[] {
  const sums = new Map<string, Sum>();
  for (const { id, place, amounts } of takes) {
    const key = `${id} ${place ?? ''}`;
    const sum = sums.get(key) ?? { id, place, amounts: {}, taken: new Set() };
    for (const [name, amount] of Object.entries(amounts)) {
      sum.amounts[name] = (sum.amounts[name] ?? 0) + amount;
      if (amount > 0) sum.taken.add(name);
    }
    sums.set(key, sum);
  }
  return [...sums.values()].sort((a, b) => a.id - b.id);
}

function byShape<T>(items: T[], shapeOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const shape = shapeOf(item);
    const group = groups.get(shape);
    if (group) group.push(item);
    else groups.set(shape, [item]);
  }
  return [...groups.values()];
}

const distinctAscending = (ids: number[]): number[] => [...new Set(ids)].sort((a, b) => a - b);

function columns(row: Record<string, unknown>): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [column, value] of Object.entries(row)) {
    if (value !== undefined) out[column] = isComputed(value) ? computed(column, value) : value;
  }
  return out;
}

const isComputed = (value: unknown): value is Computed => typeof value === 'object' && value !== null && 'is' in value;

function computed(column: string, value: Computed): RawBuilder<unknown> {
  switch (value.is) {
    case 'now':
      return sql`NOW(6)`;
    case 'in':
      return sql`NOW(6) + INTERVAL ${value.ms * 1000} MICROSECOND`;
    case 'plus':
      return sql`${sql.ref(column)} + ${value.amount}`;
    case 'atLeast':
      return sql`GREATEST(${sql.ref(column)}, ${value.value})`;
  }
}
