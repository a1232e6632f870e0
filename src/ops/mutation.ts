import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { isOutage, unavailable } from '../db/failure.ts';
import { emptyTransition, insert, type Outcome, type Transition } from '../db/transition.ts';
import { type Actor, actorKey, actorName, authorize, mustBeKnown } from '../domain/authorize.ts';
import { type ErrorCode, type UserErrorData, VirtgraphError } from '../domain/errors.ts';
import type { GuardedKind, Verb } from '../domain/permission.ts';
import {
  type Asked,
  askedOf,
  allowed as auditOfAllowed,
  refused as auditOfRefused,
  type SubjectField,
} from './audit.ts';
import type { OpsContext, Payload, Via } from './context.ts';

/** What an operation has decided, before it is written. */
export type Decision =
  | {
      kind: 'write';
      transition: Transition;
      id: number | null;
      jobId: number | null;
      /** Told whether it was written: gives back room that was held meanwhile. */
      settle?: (written: boolean) => void;
    }
  /** The request is satisfied as things are. */
  | { kind: 'already'; id: number };

export interface Asker {
  actor: Actor;
  /** What the mutation does with what it is about. */
  verb: Verb;
  name: string;
  reason: string | null;
  via: Via;
}

export interface Base {
  idempotencyKey?: string | null | undefined;
  reason?: string | null | undefined;
}

/** Tries before a conflict is told to the caller. Each reads everything anew. */
const TRIES = 8;

/**
 * Wraps what an operation decides in what all have in common: rights, checks of the input, the idempotency key, the
 * write, another try when someone else was faster, and a record in the audit trail. A request that was answered before
 * leaves no second one.
 *
 * @param rights `own`: everybody may, to what is his own; whatever is beyond that `decide` looks at
 * @param about fields that name what it is about, for the audit trail, where it is not `id`
 */
export function mutation<I extends Base>(
  name: string,
  rights: { verb: Verb; kind: GuardedKind } | { own: GuardedKind },
  schema: z.ZodType<I>,
  decide: (context: OpsContext, input: I, asker: Asker) => Promise<Decision>,
  about: readonly SubjectField[] = [],
) {
  return async (context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<Payload> => {
    const asked = askedOf(name, actor, via, raw, about.length > 0 ? about : ['id']);
    try {
      const payload = await run(asked, context, raw);
      // Nobody is refused without a record of it: where none can be written, nothing can be answered.
      if (payload.errors[0]) await recordRefusal(context, asked, payload.errors[0].code);
      return payload;
    } catch (error) {
      if (isOutage(error)) throw unavailable(error);
      if (!isUnavailable(error)) await recordRefusal(context, asked, codeOf(error));
      throw error;
    }
  };

  async function run(asked: Asked, context: OpsContext, raw: unknown): Promise<Payload> {
    const { actor, via } = asked;
    if ('own' in rights) mustBeKnown(actor);
    else authorize(actor, rights.verb, rights.kind);
    const parsed = schema.safeParse(raw);
    if (!parsed.success) return refused(parsed.error.issues.map(inputError));
    const input = parsed.data;
    const asker: Asker = {
      actor,
      verb: 'own' in rights ? 'update' : rights.verb,
      name: actorName(actor),
      reason: input.reason ?? null,
      via,
    };
    const key = input.idempotencyKey ? keyOf(actorKey(actor), name, input.idempotencyKey, input) : null;
    try {
      return await attempt({ context, asked, key, kind: 'own' in rights ? rights.own : rights.kind }, () =>
        decide(context, input, asker),
      );
    } catch (error) {
      if (!(error instanceof VirtgraphError)) throw error;
      // What is refused now may be what the same request did before: that answer stands.
      return (key && (await stored(context, key))) ?? refused([error.data]);
    }
  }
}

const isUnavailable = (error: unknown): boolean => error instanceof VirtgraphError && error.code === 'UNAVAILABLE';
const codeOf = (error: unknown): ErrorCode => (error instanceof VirtgraphError ? error.code : 'INTERNAL');

/** In a transaction of its own, before the answer. @throws VirtgraphError UNAVAILABLE */
async function recordRefusal(context: OpsContext, asked: Asked, code: ErrorCode): Promise<void> {
  try {
    await context.writer.submit({ ...emptyTransition(), audits: [await auditOfRefused(context, asked, code)] });
  } catch (error) {
    throw isOutage(error) ? unavailable(error) : error;
  }
}

/** What all tries of one request have in common. */
interface Request {
  context: OpsContext;
  asked: Asked;
  key: Key | null;
  kind: GuardedKind;
}

async function attempt(request: Request, decide: () => Promise<Decision>): Promise<Payload> {
  const { context, asked, key, kind } = request;
  for (let tries = 1; tries <= TRIES; tries++) {
    const decision = await decide().catch(async (error: unknown) => {
      if (!(error instanceof VirtgraphError)) throw error;
      // It may rest on what another control plane has changed a moment ago, for the same caller even.
      await context.catchUp();
      return decide();
    });
    if (decision.kind === 'already') return already(request, decision.id);
    const { transition, id, jobId, settle } = decision;
    const complete = async (): Promise<Transition> => {
      const audits = [await auditOfAllowed(context, asked, kind, decision, transition)];
      return withKey({ ...transition, audits }, key && (await keyRow(context, key, id, jobId)));
    };
    const outcome = await submit(context, complete, settle);
    switch (outcome.kind) {
      case 'written':
        return { id, jobId, errors: [] };
      case 'duplicate':
        if (outcome.key === 'idempotency_once') {
          const before = await stored(context, key!);
          if (before) return before;
          break;
        }
        throw alreadyExists(outcome.key);
      case 'full':
      case 'gone':
        await context.inventory.doubt(transition.writes);
        break;
      case 'stale':
        break;
    }
  }
  throw new VirtgraphError({ code: 'CONFLICT', message: 'Others change this at the same time. Try again.' });
}

/** @param key the unique key that stands already */
const alreadyExists = (key: string): VirtgraphError =>
  key.endsWith('_live_name')
    ? new VirtgraphError({ code: 'ALREADY_EXISTS', message: 'This name is taken.', path: ['name'] })
    : new VirtgraphError({ code: 'ALREADY_EXISTS', message: 'It is there already.', path: null });

/**
 * Nothing to write but that it was asked for, and the key, so that the same request has the same answer whatever becomes
 * of the object meanwhile.
 */
async function already({ context, asked, key, kind }: Request, id: number): Promise<Payload> {
  const payload: Payload = { id, jobId: null, errors: [] };
  const before = key && (await stored(context, key));
  if (before) return before;
  const nothing = emptyTransition();
  const audits = [await auditOfAllowed(context, asked, kind, payload, nothing)];
  const outcome = await context.writer.submit(
    withKey({ ...nothing, audits }, key && (await keyRow(context, key, id, null))),
  );
  return outcome.kind === 'written' || !key ? payload : ((await stored(context, key)) ?? payload);
}

async function submit(
  context: OpsContext,
  transition: () => Promise<Transition>,
  settle: ((written: boolean) => void) | undefined,
): Promise<Outcome> {
  let written = false;
  try {
    const outcome = await context.writer.submit(await transition());
    written = outcome.kind === 'written';
    return outcome;
  } finally {
    settle?.(written);
  }
}

const refused = (errors: UserErrorData[]): Payload => ({ id: null, jobId: null, errors });

/** What is wrong with one field of an input. */
export const inputError = (issue: z.core.$ZodIssue): UserErrorData => ({
  code: 'INVALID_INPUT',
  message: issue.message,
  path: issue.path.map(String),
});

interface Key {
  actor: string;
  mutation: string;
  key: string;
  hash: Buffer;
}

function keyOf(actor: string, name: string, key: string, input: Base): Key {
  // A password or a secret is not in what is kept of the input: the hash is a fast one, and whoever has it could guess.
  const {
    idempotencyKey: _,
    password: __,
    secret: ___,
    ...args
  } = input as Base & Record<'password' | 'secret', unknown>;
  return { actor, mutation: name, key, hash: createHash('sha256').update(canonical(args)).digest() };
}

/** JSON with sorted keys, in which what is absent and what is null are the same. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(
          Object.entries(inner)
            .filter(([, v]) => v !== null && v !== undefined)
            .sort(([a], [b]) => (a < b ? -1 : 1)),
        )
      : inner,
  );
}

const keyRow = async (context: OpsContext, key: Key, resourceId: number | null, jobId: number | null) =>
  insert('idempotency_key', {
    id: await context.ids.take(),
    actor: key.actor,
    mutation: key.mutation,
    idempotency_key: key.key,
    args_hash: key.hash,
    resource_id: resourceId,
    job_id: jobId,
  });

/** The key first: when several unique keys stand already, this is the one that must be named. */
const withKey = (transition: Transition, row: ReturnType<typeof insert> | null): Transition =>
  row ? { ...transition, writes: [row, ...transition.writes] } : transition;

async function stored(context: OpsContext, key: Key): Promise<Payload | null> {
  const row = await context.db
    .selectFrom('idempotency_key')
    .select(['args_hash', 'resource_id', 'job_id'])
    .where('actor', '=', key.actor)
    .where('mutation', '=', key.mutation)
    .where('idempotency_key', '=', key.key)
    .executeTakeFirst();
  if (!row) return null;
  if (row.args_hash.equals(key.hash)) return { id: row.resource_id, jobId: row.job_id, errors: [] };
  return refused([
    {
      code: 'IDEMPOTENCY_KEY_REUSED',
      message: 'This key was used with other arguments. Take a new one for another request.',
      path: ['idempotencyKey'],
    },
  ]);
}
