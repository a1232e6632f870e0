import type { Kysely } from 'kysely';
import { type AuditFilter, auditConditions, readsAll } from '../db/audit-filter.ts';
import type { AuditRecord, Database } from '../db/tables.ts';
import { visible } from '../db/visible.ts';
import { type Actor, authorize } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId, type ResourceKind } from '../domain/ids.ts';
import { AUDIT_OUTCOMES, type AuditOutcome, type FieldChange } from '../domain/kinds.ts';

const ROWS_AT_ONCE = 500;
const TEXTS = ['actor', 'userId', 'subjectId', 'action'] as const;
const MOMENTS = ['from', 'to'] as const;
const KNOWN: readonly string[] = [...TEXTS, ...MOMENTS, 'outcome'];

/** The filter of a query string: each name once, as in the graph. @throws VirtgraphError INVALID_INPUT */
export function auditFilterOf(query: URLSearchParams): AuditFilter {
  const invalid = (message: string, name: string): VirtgraphError =>
    new VirtgraphError({ code: 'INVALID_INPUT', message: `${name}: ${message}`, path: ['filter', name] });
  for (const name of new Set(query.keys())) {
    if (!KNOWN.includes(name)) throw invalid(`There is no such filter: ${KNOWN.join(', ')}.`, name);
    if (query.getAll(name).length > 1) throw invalid('Give it once.', name);
  }
  const outcome = query.get('outcome');
  if (outcome !== null && !(AUDIT_OUTCOMES as readonly string[]).includes(outcome))
    throw invalid(`One of ${AUDIT_OUTCOMES.join(', ')}.`, 'outcome');
  const moment = (name: string): Date | null => {
    const text = query.get(name);
    if (text === null) return null;
    const date = new Date(text);
    if (Number.isNaN(date.getTime())) throw invalid('A moment like `2026-11-24T13:37:00Z`.', name);
    return date;
  };
  return {
    ...Object.fromEntries(TEXTS.map((name) => [name, query.get(name)])),
    outcome: outcome as AuditOutcome | null,
    from: moment('from'),
    to: moment('to'),
  };
}

/**
 * The audit trail as JSON lines, oldest first, up to what is written by now: what the actor may read of it, and no
 * more than the graph shows him. Each value is some hundred lines; who does not ask for the next makes nothing be read.
 *
 * @throws VirtgraphError UNAUTHENTICATED, FORBIDDEN, INVALID_INPUT
 */
export function exportAudit(db: Kysely<Database>, actor: Actor, query: URLSearchParams): AsyncGenerator<string> {
  authorize(actor, 'read', 'audit');
  return chunks(db, actor, [visible(actor, 'audit'), ...auditConditions(auditFilterOf(query), actor)]);
}

type Row = AuditRecord & { page: number | null };

async function* chunks(
  db: Kysely<Database>,
  actor: Actor,
  conditions: ReturnType<typeof auditConditions>,
): AsyncGenerator<string> {
  const { audit_seq: end } = await db.selectFrom('feed_head').select('audit_seq').executeTakeFirstOrThrow();
  let rows: Row[];
  let cursor = 0;
  do {
    let select = db
      .selectFrom('audit')
      .selectAll('audit')
      .select((eb) =>
        eb
          .selectFrom('audit_page')
          .select('audit_page.page')
          .whereRef('audit_page.last_seq', '>=', 'audit.seq')
          .orderBy('audit_page.last_seq')
          .limit(1)
          .as('page'),
      )
      .where('audit.seq', '>', cursor)
      .where('audit.seq', '<=', end);
    for (const condition of conditions) select = select.where(condition);
    rows = await select.orderBy('audit.seq').limit(ROWS_AT_ONCE).execute();
    if (rows.length === 0) return;
    cursor = rows.at(-1)!.seq;
    const names = await PublicIds.of(db, actor, rows);
    yield rows.map((row) => `${JSON.stringify(lineOf(row, names, actor))}\n`).join('');
  } while (rows.length === ROWS_AT_ONCE);
}

function lineOf(row: Row, names: PublicIds, actor: Actor) {
  const user = names.get('user', row.user_id);
  const [kind = null, id] = row.credential?.split(':') ?? [];
  const apiKey = kind === 'api-key' ? names.get('api_key', Number(id)) : null;
  // As in the graph: for operators, and for those who answer for him.
  const isShown = readsAll(actor) || user !== null;
  return {
    seq: row.seq,
    page: row.page,
    at: `${row.recorded_at.replace(' ', 'T')}Z`,
    action: row.action,
    outcome: row.outcome,
    code: row.code,
    actor: row.actor,
    userId: user,
    address: isShown ? row.address : null,
    credentialKind: kind,
    apiKeyId: apiKey,
    subjectKind: row.subject_kind,
    subjectId: row.asked_id ?? (row.subject_kind && names.get(row.subject_kind, row.subject_id)),
    jobId: names.get('job', row.job_id),
    reason: row.reason,
    changes: JSON.parse(row.changes) as FieldChange[],
    requestId: isShown ? row.request_id : null,
  };
}

/** The public ids of all that some rows name, as far as they are there for the actor: one statement for each kind. */
class PublicIds {
  readonly #names = new Map<string, string>();

  static async of(db: Kysely<Database>, actor: Actor, rows: readonly Row[]): Promise<PublicIds> {
    const wanted = new Map<ResourceKind, Set<number>>();
    const want = (kind: ResourceKind | null, id: number | null): void => {
      if (kind === null || id === null) return;
      const ids = wanted.get(kind);
      if (ids) ids.add(id);
      else wanted.set(kind, new Set([id]));
    };
    for (const row of rows) {
      want('user', row.user_id);
      want('job', row.job_id);
      if (row.asked_id === null) want(row.subject_kind, row.subject_id);
      if (row.credential?.startsWith('api-key:')) want('api_key', Number(row.credential.slice('api-key:'.length)));
    }
    const names = new PublicIds();
    for (const [kind, ids] of wanted) await names.#read(db, actor, kind, [...ids]);
    return names;
  }

  async #read(db: Kysely<Database>, actor: Actor, kind: ResourceKind, ids: number[]): Promise<void> {
    const rows = await db
      .selectFrom(kind as 'vm')
      .select(['id', 'uid'])
      .where('id', 'in', ids)
      .where(visible(actor, kind))
      .execute();
    for (const { id, uid } of rows) this.#names.set(`${kind} ${id}`, encodeId(kind, uid));
  }

  get(kind: ResourceKind, id: number | null): string | null {
    return this.#names.get(`${kind} ${id}`) ?? null;
  }
}
