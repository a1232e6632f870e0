import type { User } from '../db/tables.ts';
import { absent, emptyTransition, now, patch, type Transition } from '../db/transition.ts';
import type { Actor, Credential } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { OpsContext, Payload, Via } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { find, told } from './named-resource.ts';
import { mustHaveRightWith, mustOutrank } from './rights.ts';
import { endOfSession, mustBeSomeone, sessionEvent } from './session.ts';

/**
 * A new password, and an end of all sessions but the one that is used: whoever had the old one is out, also who signs in
 * with it at the same moment. He holds the user as it was with it; so he is written before, and found here, or never.
 */
async function changeTo(
  context: OpsContext,
  user: Pick<User, 'id' | 'account_id' | 'password_hash'>,
  password_hash: string,
  asker: Asker,
  kept: Credential | null,
): Promise<Transition> {
  const sessions = await context.db
    .selectFrom('session')
    .select('id')
    .where('user_id', '=', user.id)
    .where('deleted_at', 'is', null)
    .execute();
  const current = kept?.kind === 'session' ? kept.id : null;
  const ended = sessions.map(({ id }) => id).filter((id) => id !== current);
  return {
    ...emptyTransition(),
    writes: [
      patch(
        'user',
        user.id,
        { password_hash: user.password_hash, deleted_at: null },
        { password_hash, password_changed_at: now },
      ),
      ...ended.map(endOfSession),
      absent('session', 'user_id', user.id, current),
    ],
    changes: ended.map((id) => ({ kind: 'session' as const, id })),
    events: [
      told('user', user, 'password_changed', asker, []),
      ...ended.map((id) => sessionEvent('ended', { id, account_id: user.account_id }, asker.name, asker.reason)),
    ],
  };
}

/** Of somebody else, by whoever may change him and has no less than he has; one's own only while there is none. */
export async function setPassword(context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<Payload> {
  // Hashed once, however often others are faster.
  let hash: Promise<string> | undefined;
  const set = mutation(
    'setPassword',
    { verb: 'update', kind: 'user' },
    INPUTS.setPassword,
    async (of, { userId, password }, asker) => {
      const user = await find(of, 'user', userId, ['userId'], asker.actor);
      await mustHaveRightWith(of, asker, 'user', user);
      await mustOutrank(of, user, asker, ['userId']);
      mustBeKnownHere(user);
      const own = asker.actor.kind === 'user' && asker.actor.userId === user.id;
      if (own && user.password_hash !== null)
        throw new VirtgraphError({
          code: 'FORBIDDEN',
          message: 'This is you: `changePassword` asks for your current password.',
          path: ['userId'],
        });
      hash ??= of.passwords.hash(password);
      const kept = own && asker.actor.kind === 'user' ? asker.actor.credential : null;
      return {
        kind: 'write',
        id: user.id,
        jobId: null,
        transition: await changeTo(of, user, await hash, asker, kept),
      };
    },
    ['userId'],
  );
  return await set(context, actor, raw, via);
}

/** Whoever is let in by another way than his provider stays when it knows him no more. @throws VirtgraphError INVALID_STATE */
function mustBeKnownHere(user: Pick<User, 'name' | 'identity_provider_id'>): void {
  if (user.identity_provider_id === null) return;
  throw new VirtgraphError({
    code: 'INVALID_STATE',
    message: `${user.name} signs in by an identity provider, and has no password here.`,
    path: ['userId'],
    state: 'EXTERNAL',
    allowedActions: [],
  });
}

/** One's own, with the current one. */
export async function changePassword(context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<Payload> {
  // Looked at once: a guard on what was looked at refuses whatever another has made of it meanwhile.
  let seen: User | undefined;
  let hash: Promise<string> | undefined;
  const change = mutation('changePassword', { own: 'user' }, INPUTS.changePassword, async (of, input, asker) => {
    const { userId, credential } = mustBeSomeone(asker.actor);
    seen ??= await of.db.selectFrom('user').selectAll().where('id', '=', userId).executeTakeFirstOrThrow();
    hash ??= rehash(of, seen, input, via);
    return {
      kind: 'write',
      id: userId,
      jobId: null,
      transition: await changeTo(of, seen, await hash, asker, credential),
    };
  });
  return await change(context, actor, raw, via);
}

/** @throws VirtgraphError RATE_LIMITED, INVALID_INPUT */
async function rehash(
  { passwords, signInLimits }: OpsContext,
  user: User,
  { currentPassword, newPassword }: { currentPassword: string; newPassword: string },
  via: Via,
): Promise<string> {
  const takeBack = signInLimits.begin(`user ${user.id}`, via.address);
  const { right } = await passwords.verify(currentPassword, user.password_hash);
  if (!right)
    throw new VirtgraphError({
      code: 'INVALID_INPUT',
      message: 'This is not your current password.',
      path: ['currentPassword'],
    });
  takeBack();
  return await passwords.hash(newPassword);
}
