import { type Kysely, sql } from 'kysely';
import { newUid } from '../db/ids.ts';
import type { Database } from '../db/tables.ts';
import { merged, type Transition } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import { type ErrorCode, WITHOUT_HOSTS } from '../domain/errors.ts';
import { encodeId } from '../domain/ids.ts';
import type { JobView, StepError } from '../domain/job.ts';
import { isEnded } from '../domain/job-state.ts';
import { VM_STATES } from '../domain/vm-state.ts';
import { clip, endQueued, enqueue } from '../jobs/advance.ts';
import {
  beginCompound,
  COMPOUNDS,
  type Compound,
  type CompoundContext,
  endCompound,
  onToTheRest,
  progressed,
} from '../jobs/compound.ts';
import { readJobs } from '../jobs/job-read.ts';
import { CANCELLED } from '../jobs/move.ts';
import { workflowForAction } from '../jobs/vm-plan.ts';
import { FROM_WITHIN, type OpsContext, type Payload } from './context.ts';
import type { Asker } from './mutation.ts';

/** VMs that one job works at at the same time: hosts have other things to do too. */
const AT_ONCE = 20;
const NAMES_SHOWN = 5;

export type Scope = Pick<CompoundContext, 'kind' | 'id'>;
type DeleteOf = Record<'template' | 'user' | 'identity_provider' | 'account' | 'domain', Delete>;
type Delete = (context: OpsContext, actor: Actor, input: unknown, via: typeof FROM_WITHIN) => Promise<Payload>;

/** Ids of the accounts that are meant: the one, or all that stand in the domain or below it. */
const accountsOf = ({ kind, id }: Scope) =>
  kind === 'account'
    ? sql<number>`(${id})`
    : sql<number>`(select account.id from account inner join domain on domain.id = account.domain_id
        where domain.path like concat((select path from domain as top where top.id = ${id}), '%'))`;

/** In the order in which they go. */
const OWNED = ['vm', 'volume', 'template', 'api_key', 'user', 'identity_provider'] as const;

export interface PlanItem {
  kind: (typeof OWNED)[number] | 'account' | 'domain';
  count: number;
}

/** What a deletion with all that is inside would delete, itself included; in the order in which it goes. */
export async function deletionPlan({ db }: OpsContext, scope: Scope): Promise<PlanItem[]> {
  const accounts = accountsOf(scope);
  const owned = async (kind: (typeof OWNED)[number]): Promise<PlanItem> => {
    const { rows } = await sql<{ n: number }>`
      select count(*) as n from ${sql.table(kind)} where account_id in ${accounts} and deleted_at is null`.execute(db);
    return { kind, count: Number(rows[0]!.n) };
  };
  const items: PlanItem[] = [];
  for (const kind of OWNED) items.push(await owned(kind));
  items.push({ kind: 'account', count: (await livingAccounts(db, scope)).length });
  items.push({ kind: 'domain', count: (await livingDomains(db, scope)).length });
  return items.filter(({ count }) => count > 0);
}

const livingAccounts = (db: Kysely<Database>, scope: Scope) =>
  db
    .selectFrom('account')
    .select(['id', 'uid'])
    .where('id', 'in', accountsOf(scope))
    .where('deleted_at', 'is', null)
    .execute();

/** The innermost first. */
const livingDomains = async (db: Kysely<Database>, { kind, id }: Scope) =>
  kind === 'account'
    ? []
    : db
        .selectFrom('domain')
        .select(['id', 'uid'])
        .where('path', 'like', sql<string>`concat((select path from domain as top where top.id = ${id}), '%')`)
        .where('deleted_at', 'is', null)
        .orderBy(sql`length(path)`, 'desc')
        .execute();

/** A job for all VMs of an account or domain, to be written together with what it follows from. */
export async function compoundJob(
  { db, ids }: OpsContext,
  kind: string,
  scope: Scope,
  asker: Pick<Asker, 'name' | 'reason'>,
  input: unknown,
): Promise<{ jobId: number; transition: Transition }> {
  const compound = COMPOUNDS[kind]!;
  const jobId = await ids.take();
  const accountId = scope.kind === 'account' ? scope.id : null;
  const job = {
    id: jobId,
    uid: newUid(),
    target: { kind: scope.kind, id: scope.id, accountId },
    actor: asker.name,
    reason: asker.reason,
    input,
    parentId: null,
  };
  const vms = await countVms(db, compound, scope);
  return { jobId, transition: beginCompound(compound, job, { ...scope, vms }) };
}

/** Does the rounds of compound jobs: when they begin, when one of their children ends, and now and then. */
export class CompoundJobs {
  readonly #context: OpsContext;
  readonly #deletes: DeleteOf;
  /** Jobs at which a round is under way; true: another is due after it. */
  readonly #rounds = new Map<number, boolean>();

  constructor(context: OpsContext, deletes: DeleteOf) {
    this.#context = context;
    this.#deletes = deletes;
  }

  /** A round soon; those that are asked for while one is under way become one. */
  round(jobId: number): void {
    if (this.#rounds.has(jobId)) {
      this.#rounds.set(jobId, true);
      return;
    }
    this.#rounds.set(jobId, false);
    void this.#roundsOf(jobId);
  }

  async #roundsOf(jobId: number): Promise<void> {
    try {
      do {
        this.#rounds.set(jobId, false);
        await this.#round(jobId);
      } while (this.#rounds.get(jobId));
    } catch (error) {
      // The job's time runs out, and whoever takes it up does a round.
      this.#context.log.warn({ err: error, jobId }, 'a round of a job could not be done');
    } finally {
      this.#rounds.delete(jobId);
    }
  }

  async #round(jobId: number): Promise<void> {
    const [job] = await readJobs(this.#context.db, [jobId]);
    const compound = job && COMPOUNDS[job.kind];
    if (!compound || isEnded(job.state)) return;
    if (job.step > 1) return this.#deleteRest(job);
    const { db } = this.#context;
    const context = job.context as CompoundContext;
    // First who is at work, then what is left: the other way round, one that ends in between would count as failed.
    const { inFlight } = await childrenOf(db, job.id);
    const filed = await this.#file(compound, job, context, AT_ONCE - inFlight);
    const remaining = await countVms(db, compound, context);
    if (inFlight + filed > 0) return this.#goOn(job, context, remaining);
    if (remaining > 0) {
      // Another process may have filed what this one found filed.
      const { inFlight: now, failed } = await childrenOf(db, job.id);
      if (now > 0) return this.#goOn(job, context, remaining);
      await this.#write(endCompound(job, 'FAILED', whatFailed(job, remaining, failed)));
    } else if (compound.deletes) {
      await this.#write(onToTheRest(job));
      this.round(job.id);
    } else await this.#write(endCompound(job, 'SUCCEEDED', null));
  }

  async #goOn(job: JobView, { vms }: CompoundContext, remaining: number): Promise<void> {
    await this.#write(progressed(job, vms === 0 ? 0 : (Math.max(0, vms - remaining) / vms) * 95));
  }

  /** What is stale another process has done: it has moved the job, and goes on. */
  async #write(transition: Transition): Promise<void> {
    await this.#context.writer.submit(transition);
  }

  /** Files the jobs of VMs that have none yet of this one, all in one transaction. @returns of how many */
  async #file(compound: Compound, job: JobView, scope: Scope, room: number): Promise<number> {
    if (room <= 0) return 0;
    const { db, ids } = this.#context;
    const vms = await vmsOf(db, compound, scope)
      .select(['vm.id', 'vm.account_id'])
      .where((where) =>
        where.not(
          where.exists(
            where
              .selectFrom('job as child')
              .select('child.id')
              .where('child.parent_id', '=', job.id)
              .where('child.target_kind', '=', 'vm')
              .whereRef('child.target_id', '=', 'vm.id'),
          ),
        ),
      )
      .orderBy('vm.id')
      .limit(room)
      .execute();
    const acts = [];
    // In ascending ids: of those of one moment, the first waits least.
    for (const vm of vms)
      for (const act of compound.acts)
        acts.push(
          enqueue(workflowForAction(act), {
            id: await ids.take(),
            uid: newUid(),
            target: { kind: 'vm', id: vm.id, accountId: vm.account_id },
            actor: job.actor,
            reason: job.reason,
            input: act === 'STOP' ? { forceAfterTimeout: true } : {},
            parentId: job.id,
          }),
        );
    if (acts.length > 0) await this.#write(merged(...acts));
    return vms.length;
  }

  /** Everything else that is inside, and then itself; each by its own mutation, so that all belongs to it goes with it. */
  async #deleteRest(job: JobView): Promise<void> {
    const { db } = this.#context;
    const scope = job.context as CompoundContext;
    const actor: Actor = { kind: 'system', name: job.actor };
    const owned = (kind: 'template' | 'user' | 'identity_provider') =>
      db
        .selectFrom(kind as 'user')
        .select(['id', 'uid'])
        .where('account_id', 'in', accountsOf(scope))
        .where('deleted_at', 'is', null)
        .execute();
    const rest = [
      ['template', await owned('template')],
      ['user', await owned('user')],
      ['identity_provider', await owned('identity_provider')],
      ['account', await livingAccounts(db, scope)],
      ['domain', await livingDomains(db, scope)],
    ] as const;
    for (const [kind, rows] of rest)
      for (const { uid } of rows) {
        const input = { id: encodeId(kind, uid), reason: job.reason };
        const { errors } = await this.#deletes[kind](this.#context, actor, input, FROM_WITHIN);
        // Another process does the same round.
        if (errors[0] && errors[0].code !== 'NOT_FOUND') {
          const { code, message } = errors[0];
          await this.#write(endCompound(job, 'FAILED', { code, message }));
          return;
        }
      }
    await this.#write(endCompound(job, 'SUCCEEDED', null));
  }
}

const vmsOf = (db: Kysely<Database>, compound: Compound, scope: Scope) =>
  db
    .selectFrom('vm')
    .where('vm.account_id', 'in', accountsOf(scope))
    .where('vm.deleted_at', 'is', null)
    .where('vm.state', 'in', VM_STATES.filter(compound.until));

async function countVms(db: Kysely<Database>, compound: Compound, scope: Scope): Promise<number> {
  const { n } = await vmsOf(db, compound, scope)
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow();
  return Number(n);
}

interface Failed {
  name: string;
  message: string;
}

/** How many VMs have an open child, and what the first that failed of each says. */
async function childrenOf(db: Kysely<Database>, jobId: number): Promise<{ inFlight: number; failed: Failed[] }> {
  const rows = await db
    .selectFrom('job')
    .innerJoin('vm', 'vm.id', 'job.target_id')
    .select(['job.target_id', 'job.state', 'vm.name', 'job.error_code', 'job.error_message'])
    .where('job.parent_id', '=', jobId)
    .where('job.state', '<>', 'SUCCEEDED')
    .orderBy('job.id')
    .execute();
  const open = rows.filter(({ state }) => !isEnded(state));
  const failed = new Map<number, Failed>();
  for (const { target_id, state, name, error_code, error_message } of rows)
    if (isEnded(state) && !failed.has(target_id))
      failed.set(target_id, {
        name,
        // Those of the account read it too; the child's own error tells whoever may know of hosts.
        message: WITHOUT_HOSTS[error_code as ErrorCode] ?? error_message ?? state,
      });
  return { inFlight: new Set(open.map(({ target_id }) => target_id)).size, failed: [...failed.values()] };
}

/** Ends it, and what of it has not begun; what is under way comes to its end. */
export async function cancelledCompound({ db }: OpsContext, job: JobView): Promise<Transition> {
  const queued = await db
    .selectFrom('job')
    .select('id')
    .where('parent_id', '=', job.id)
    .where('state', '=', 'QUEUED')
    .execute();
  const children = (
    await readJobs(
      db,
      queued.map(({ id }) => id),
    )
  ).filter((child) => child?.state === 'QUEUED');
  return merged(
    endCompound(job, 'CANCELLED', null),
    ...children.map((child) => endQueued(child!, 'CANCELLED', CANCELLED)),
  );
}

function whatFailed({ kind }: JobView, remaining: number, failed: Failed[]): StepError {
  const done = kind.startsWith('STOP') ? 'stopped' : 'deleted';
  const named = failed.slice(0, NAMES_SHOWN).map(({ name, message }) => `${name}: ${message}`);
  const more = failed.length > NAMES_SHOWN ? [`And ${failed.length - NAMES_SHOWN} more.`] : [];
  const vms = remaining === 1 ? '1 VM' : `${remaining} VMs`;
  return { code: 'INTERNAL', message: clip([`${vms} could not be ${done}.`, ...named, ...more].join(' ')) };
}
