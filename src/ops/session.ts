import { sql } from 'kysely';
import { newUid } from '../db/ids.ts';
import { asksSecondFactor, isDomainOpen, isProviderOpen } from '../db/principal.ts';
import {
  emptyTransition,
  holdEnabled,
  inMs,
  insert,
  type NewEvent,
  now,
  type Outcome,
  patch,
  type Transition,
  type Write,
} from '../db/transition.ts';
import { visible } from '../db/visible.ts';
import type { Actor, UserActor } from '../domain/authorize.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import { decodeIdOf } from '../domain/ids.ts';
import { ENROLMENT_MS, SESSION_MS, SESSIONS_PER_USER, type SignInMethod } from '../domain/session.ts';
import type { OpsContext, Via } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { mustHaveRightWith, mustOutrank } from './rights.ts';
import { newToken } from './told-once.ts';

/** Who signed in, and how. Whoever calls has made sure of it. */
export interface SessionOpening {
  userId: number;
  how: SignInMethod;
  /** That a second factor was shown: here, or to a provider that vouches for it. */
  secondFactor: boolean;
  /** Where he came from. */
  via: Via;
  /** What the program says of itself. */
  userAgent: string | null;
  /** What else is written with it, such as a code that is used up. Refused together with the session. */
  writes?: Write[];
}

export interface OpenedSession {
  kind: 'opened';
  id: number;
  /** For `Authorization: Bearer <token>` or a cookie. Told this once; only its hash is kept. */
  token: string;
  /** The domain asks for a second factor and none was shown: the session is good for setting one up alone. */
  enrolling: boolean;
}

export type OpeningOutcome =
  | OpenedSession
  /** The user, his identity provider, the account or a domain above is not there, or disabled. */
  | { kind: 'shut' }
  /** One of `writes` was refused: another was faster. */
  | { kind: 'stale' };

const USER_AGENT_MAX = 255;

interface Opener {
  account_id: number;
  identity_provider_id: number | null;
  name: string;
  asks: number;
}

/**
 * Opens a session for a user who has shown who he is: the session, its event, its change and its audit record in one transaction, which
 * holds the user, so that one who is disabled meanwhile has none. Beyond SESSIONS_PER_USER the one that was used the
 * longest ago ends.
 *
 * @throws VirtgraphError CONFLICT when others are faster all the time
 */
export async function openSession(context: OpsContext, opening: SessionOpening): Promise<OpeningOutcome> {
  let before: number[] = [];
  for (let tries = 0; tries < 3; tries++) {
    const user = await openerOf(context, opening.userId);
    if (!user) return { kind: 'shut' };
    const { token, hash } = newToken('vgs');
    const id = await context.ids.take();
    const enrolling = user.asks === 1 && !opening.secondFactor;
    const surplus = await surplusOf(context, opening.userId);
    const outcome: Outcome = await context.writer.submit(transitionOf(opening, user, { id, hash, enrolling, surplus }));
    if (outcome.kind === 'written') return { kind: 'opened', id, token, enrolling };
    // Sessions that ended meanwhile are found out by another look. Where it finds no new ones, it is what the caller adds.
    if (outcome.kind === 'stale' && surplus.every((one) => before.includes(one))) return { kind: 'stale' };
    before = surplus;
  }
  throw new VirtgraphError({ code: 'CONFLICT', message: 'Others change this at the same time. Try again.' });
}

async function openerOf({ db }: OpsContext, userId: number): Promise<Opener | undefined> {
  const { rows } = await sql<Opener>`
    select account.id as account_id, user.identity_provider_id, concat(account.name, '/', user.name) as name,
      ${asksSecondFactor} as asks
    from user
    inner join account on account.id = user.account_id and account.deleted_at is null
      and account.wanted_state = 'ENABLED'
    inner join domain on domain.id = account.domain_id
    where user.id = ${userId} and user.deleted_at is null and user.wanted_state = 'ENABLED'
      and ${isProviderOpen} and ${isDomainOpen}`.execute(db);
  return rows[0];
}

/** Sessions that have to end so that there is room for one more. */
async function surplusOf({ db }: OpsContext, userId: number): Promise<number[]> {
  const rows = await db
    .selectFrom('session')
    .select('id')
    .where('user_id', '=', userId)
    .where('deleted_at', 'is', null)
    .orderBy('last_used_at', 'desc')
    .limit(1_000)
    .offset(SESSIONS_PER_USER - 1)
    .execute();
  return rows.map(({ id }) => id);
}

function transitionOf(
  opening: SessionOpening,
  user: Opener,
  { id, hash, enrolling, surplus }: { id: number; hash: Buffer; enrolling: boolean; surplus: number[] },
): Transition {
  const { userId, how, secondFactor, via, userAgent, writes = [] } = opening;
  return {
    ...emptyTransition(),
    writes: [
      ...writes,
      holdEnabled('user', userId),
      holdEnabled('account', user.account_id),
      ...(user.identity_provider_id === null ? [] : [holdEnabled('identity_provider', user.identity_provider_id)]),
      ...surplus.map(endOfSession),
      insert('session', {
        id,
        uid: newUid(),
        user_id: userId,
        account_id: user.account_id,
        token_hash: hash,
        how,
        second_factor: secondFactor ? 1 : 0,
        address: via.address,
        user_agent: userAgent === null ? null : shown(userAgent),
        expires_at: inMs(enrolling ? ENROLMENT_MS : SESSION_MS),
      }),
    ],
    changes: [id, ...surplus].map((one) => ({ kind: 'session' as const, id: one })),
    events: [
      ...surplus.map((one) => sessionEvent('ended', { id: one, account_id: user.account_id }, user.name, null)),
      sessionEvent('opened', { id, account_id: user.account_id }, user.name, null),
    ],
    audits: [
      {
        action: 'signIn',
        outcome: 'ALLOWED',
        code: null,
        actor: user.name,
        userId,
        credential: `session:${id}`,
        address: via.address,
        accountId: user.account_id,
        subject: { kind: 'session', id },
        jobId: null,
        reason: null,
        changes: [],
        requestId: via.requestId,
      },
    ],
  };
}

/** As a person may read it: what programs say of themselves comes from outside. */
const shown = (userAgent: string): string =>
  [...userAgent.toWellFormed().replace(/\p{Cc}/gu, ' ')].slice(0, USER_AGENT_MAX).join('');

export const endOfSession = (id: number): Write => patch('session', id, { deleted_at: null }, { deleted_at: now });

export const sessionEvent = (
  what: 'opened' | 'ended',
  session: { id: number; account_id: number },
  actor: string,
  reason: string | null,
): NewEvent => ({
  type: `session.${what}`,
  subject: { kind: 'session', id: session.id },
  accountId: session.account_id,
  jobId: null,
  actor,
  reason,
  changes: [],
});

/** @throws VirtgraphError FORBIDDEN for an operator's own token, which is of no user */
export function mustBeSomeone(actor: Actor): UserActor {
  if (actor.kind === 'user') return actor;
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: 'This token is of no user: sign in as the one that is meant.',
  });
}

const ending = (session: { id: number; account_id: number }, asker: Asker): Decision => ({
  kind: 'write',
  id: session.id,
  jobId: null,
  transition: {
    ...emptyTransition(),
    writes: [endOfSession(session.id)],
    changes: [{ kind: 'session', id: session.id }],
    events: [sessionEvent('ended', session, asker.name, asker.reason)],
  },
});

/** Ends the session that asks. */
export const signOut = mutation('signOut', { own: 'session' }, INPUTS.signOut, async (_context, _input, asker) => {
  const { credential, accountId } = mustBeSomeone(asker.actor);
  if (credential.kind === 'session') return ending({ id: credential.id, account_id: accountId }, asker);
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: 'An API key is not signed in. `revokeApiKey` ends it for good.',
  });
});

/** From its commit on nothing is answered to the session, and what it has open ends. One's own, or that of whom one rules. */
export const revokeSession = mutation(
  'revokeSession',
  { own: 'session' },
  INPUTS.revokeSession,
  async (context, input, asker) => {
    const uid = decodeIdOf('session', input.id);
    const session =
      uid &&
      (await context.db
        .selectFrom('session')
        .innerJoin('user', 'user.id', 'session.user_id')
        .select(['session.id', 'session.account_id', 'session.user_id', 'user.name', 'user.role_id'])
        .where('session.uid', '=', uid)
        .where('session.deleted_at', 'is', null)
        .where(visible(asker.actor, 'session'))
        .executeTakeFirst());
    if (!session) throw notFound('session', ['id']);
    if (asker.actor.kind !== 'user' || asker.actor.userId !== session.user_id) {
      await mustHaveRightWith(context, { ...asker, verb: 'delete' }, 'session', session);
      await mustOutrank(context, session, asker, ['id']);
    }
    return ending(session, asker);
  },
);
