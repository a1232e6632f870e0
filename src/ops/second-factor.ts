import { createHash, randomInt } from 'node:crypto';
import { Secret, TOTP } from 'otpauth';
import type { User } from '../db/tables.ts';
import { emptyTransition, inMs, now, patch, type Write } from '../db/transition.ts';
import type { Actor, UserActor } from '../domain/authorize.ts';
import { type UserErrorData, VirtgraphError } from '../domain/errors.ts';
import { SESSION_MS } from '../domain/session.ts';
import type { OpsContext, Payload, Via } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { find, told } from './named-resource.ts';
import { mustHaveRightWith, mustOutrank } from './rights.ts';
import { mustBeSomeone } from './session.ts';

/** What of a user's row a second factor is made of. */
export type FactorRow = Pick<
  User,
  'id' | 'updated_at' | 'totp_seed' | 'totp_confirmed_at' | 'totp_step' | 'recovery_hashes'
>;

const ISSUER = 'Virtgraph';
const PERIOD_S = 30;
/** A clock may be so many periods off, either way. */
const WINDOW = 1;
const RECOVERY_CODES = 10;
const HASH_BYTES = 32;
/** Nothing that a person takes for another. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

const purposeOf = (userId: number): string => `totp ${userId}`;
const totpOf = (secret: Secret, label: string): TOTP =>
  new TOTP({ issuer: ISSUER, label, secret, algorithm: 'SHA1', digits: 6, period: PERIOD_S });

/** `xxxxx-xxxxx-xxxxx`: 75 bits, so a fast hash is enough. */
const recoveryCode = (): string =>
  Array.from({ length: 3 }, () => Array.from({ length: 5 }, () => ALPHABET[randomInt(32)]).join('')).join('-');

const hashOf = (code: string): Buffer => createHash('sha256').update(code.trim().toLowerCase()).digest();

/** The step of a code that is right, at or next to now; null: it is wrong. */
function stepOf(context: OpsContext, user: FactorRow, code: string): number | null {
  const seed = context.sealer.open(user.totp_seed!, purposeOf(user.id));
  const totp = totpOf(new Secret({ buffer: new Uint8Array(seed).buffer }), '');
  const timestamp = Date.now();
  const delta = totp.validate({ token: code.replaceAll(/\s/g, ''), window: WINDOW, timestamp });
  return delta === null ? null : Math.floor(timestamp / 1000 / PERIOD_S) + delta;
}

/**
 * What is written when a code is right: that it was used. The guard lets one of two that send it at once through.
 *
 * @returns null when it is wrong, or was used
 */
export function useOfCode(context: OpsContext, user: FactorRow, code: string): Write | null {
  // Using a code is no change of the user.
  const untouched = { updated_at: user.updated_at };
  const step = stepOf(context, user, code);
  if (step !== null) {
    if (user.totp_step !== null && step <= user.totp_step) return null;
    return patch('user', user.id, { totp_step: user.totp_step }, { totp_step: step, ...untouched });
  }
  const hashes = user.recovery_hashes ?? Buffer.alloc(0);
  const wanted = hashOf(code);
  for (let at = 0; at < hashes.length; at += HASH_BYTES) {
    if (!hashes.subarray(at, at + HASH_BYTES).equals(wanted)) continue;
    const left = Buffer.concat([hashes.subarray(0, at), hashes.subarray(at + HASH_BYTES)]);
    return patch('user', user.id, { recovery_hashes: hashes }, { recovery_hashes: left, ...untouched });
  }
  return null;
}

export const WRONG_CODE: UserErrorData = {
  code: 'UNAUTHENTICATED',
  message: 'This code is wrong, or was used before. Wait for the next one.',
  path: ['code'],
};

const rowOf = (context: OpsContext, id: number): Promise<User> =>
  context.db.selectFrom('user').selectAll().where('id', '=', id).executeTakeFirstOrThrow();

export interface TotpPayload extends Payload {
  /** Told this once: for an authenticator, in base32 and as what a QR code holds. */
  secret: string | null;
  uri: string | null;
}

/** A session is where somebody sits; a key would set up its user's factor behind his back. @throws VirtgraphError FORBIDDEN */
function mustBeSignedIn(actor: Actor): UserActor {
  const user = mustBeSomeone(actor);
  if (user.credential.kind === 'session') return user;
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: 'Sign in for this: an API key does not set up an authenticator.',
  });
}

const mustHaveNone = (user: FactorRow): void => {
  if (user.totp_confirmed_at === null) return;
  throw new VirtgraphError({
    code: 'INVALID_STATE',
    message: 'You have an authenticator already. Remove it first.',
    state: 'CONFIRMED',
    allowedActions: ['removeTotp'],
  });
};

/** A secret for an authenticator. Nothing asks for its codes before `confirmTotp` was sent one; each call makes another. */
export async function beginTotp(context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<TotpPayload> {
  const secret = new Secret({ size: 20 });
  const begin = mutation('beginTotp', { own: 'user' }, INPUTS.beginTotp, async (of, _input, asker) => {
    const { userId } = mustBeSignedIn(asker.actor);
    const user = await rowOf(of, userId);
    mustHaveNone(user);
    const totp_seed = of.sealer.seal(Buffer.from(secret.buffer), purposeOf(userId));
    return {
      kind: 'write',
      id: userId,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [patch('user', userId, { totp_confirmed_at: null, deleted_at: null }, { totp_seed, totp_step: null })],
        events: [told('user', user, 'second_factor_begun', asker, [])],
      },
    };
  });
  const payload = await begin(context, actor, raw, via);
  const made = payload.errors.length === 0 && actor.kind === 'user';
  return made
    ? { ...payload, secret: secret.base32, uri: totpOf(secret, actor.name).toString() }
    : { ...payload, secret: null, uri: null };
}

export interface RecoveryPayload extends Payload {
  /** Told this once. */
  recoveryCodes: string[] | null;
}

/**
 * From a first right code on, signing in asks for one. The session has shown it: where the domain asks for it, it may now
 * do what its role allows, for as long as any other.
 */
export async function confirmTotp(context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<RecoveryPayload> {
  const codes = Array.from({ length: RECOVERY_CODES }, recoveryCode);
  const confirm = mutation('confirmTotp', { own: 'user' }, INPUTS.confirmTotp, async (of, { code }, asker) => {
    const { userId, credential, enrolling } = mustBeSignedIn(asker.actor);
    const user = await rowOf(of, userId);
    mustHaveNone(user);
    if (user.totp_seed === null)
      throw new VirtgraphError({
        code: 'INVALID_STATE',
        message: 'Nothing to confirm: ask for a secret first.',
        state: 'NONE',
        allowedActions: ['beginTotp'],
      });
    const step = stepOf(of, user, code);
    if (step === null) throw new VirtgraphError({ ...WRONG_CODE, code: 'INVALID_INPUT' });
    return {
      kind: 'write',
      id: userId,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          patch(
            'user',
            userId,
            { totp_seed: user.totp_seed, totp_confirmed_at: null, deleted_at: null },
            { totp_confirmed_at: now, totp_step: step, recovery_hashes: Buffer.concat(codes.map(hashOf)) },
          ),
          patch(
            'session',
            credential.id,
            { deleted_at: null },
            { second_factor: 1, ...(enrolling ? { expires_at: inMs(SESSION_MS) } : {}) },
          ),
        ],
        changes: [{ kind: 'session', id: credential.id }],
        events: [told('user', user, 'second_factor_confirmed', asker, [])],
      },
    };
  });
  const payload = await confirm(context, actor, raw, via);
  return { ...payload, recoveryCodes: payload.errors.length === 0 ? codes : null };
}

/** One's own with a code; another's by whoever may change him and has no less than he has. */
export async function removeTotp(context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<Payload> {
  const remove = mutation(
    'removeTotp',
    { own: 'user' },
    INPUTS.removeTotp,
    async (of, input, asker) => {
      const user = await ofWhom(of, input.userId ?? null, asker);
      if (user.totp_seed === null) return { kind: 'already', id: user.id };
      const own = asker.actor.kind === 'user' && asker.actor.userId === user.id;
      if (own && user.totp_confirmed_at !== null) mustBeRight(of, user, input.code ?? '');
      return {
        kind: 'write',
        id: user.id,
        jobId: null,
        transition: {
          ...emptyTransition(),
          writes: [
            patch(
              'user',
              user.id,
              { totp_seed: user.totp_seed, totp_step: user.totp_step, deleted_at: null },
              { totp_seed: null, totp_confirmed_at: null, totp_step: null, recovery_hashes: null },
            ),
          ],
          events: [told('user', user, 'second_factor_removed', asker, [])],
        },
      };
    },
    ['userId'],
  );
  return await remove(context, actor, raw, via);
}

async function ofWhom(context: OpsContext, userId: string | null, asker: Asker): Promise<User> {
  const { actor } = asker;
  if (userId === null) return rowOf(context, mustBeSomeone(actor).userId);
  const user = await find(context, 'user', userId, ['userId'], actor);
  if (actor.kind === 'user' && actor.userId === user.id) return user;
  await mustHaveRightWith(context, { ...asker, verb: 'update' }, 'user', user);
  await mustOutrank(context, user, asker, ['userId']);
  return user;
}

/** @throws VirtgraphError RATE_LIMITED, INVALID_INPUT */
function mustBeRight(context: OpsContext, user: FactorRow, code: string): void {
  const takeBack = context.signInLimits.beginCode(user.id);
  if (useOfCode(context, user, code) === null) throw new VirtgraphError({ ...WRONG_CODE, code: 'INVALID_INPUT' });
  takeBack();
}
