import { createHash, randomBytes } from 'node:crypto';
import type { z } from 'zod';
import type { Actor } from '../domain/authorize.ts';
import type { UserErrorData } from '../domain/errors.ts';
import type { GuardedKind, Verb } from '../domain/permission.ts';
import type { OpsContext, Payload, Via } from './context.ts';
import { type Asker, type Base, type Decision, mutation } from './mutation.ts';

export interface TokenPayload extends Payload {
  /** Shown this once; only its hash is kept. */
  token: string | null;
}

/** @param prefix so that it never begins with a dash, which a command line takes for an option, and is known in a leak */
export function newToken(prefix: string): { token: string; hash: Buffer } {
  const token = `${prefix}_${randomBytes(32).toString('base64url')}`;
  return { token, hash: createHash('sha256').update(token).digest() };
}

/**
 * A mutation that makes a secret. Repeated with its key it makes no second one, and cannot tell the first again: only
 * its hash is kept.
 *
 * @param prefix of the token, as `newToken` takes it
 * @param decide gets the SHA-256 of the token
 */
export function toldOnce<I extends Base>(
  name: string,
  prefix: string,
  rights: { verb: Verb; kind: GuardedKind },
  schema: z.ZodType<I>,
  decide: (
    context: OpsContext,
    input: I,
    asker: Asker,
    hash: Buffer,
  ) => Promise<Omit<Extract<Decision, { kind: 'write' }>, 'settle'>>,
) {
  return async (context: OpsContext, actor: Actor, raw: unknown, via: Via): Promise<TokenPayload> => {
    const { token, hash } = newToken(prefix);
    let made = false;
    const make = mutation(name, rights, schema, async (of, input, asker) => ({
      ...(await decide(of, input, asker, hash)),
      settle: (written) => {
        made = written;
      },
    }));
    const payload = await make(context, actor, raw, via);
    if (made) return { ...payload, token };
    return { id: null, jobId: null, errors: payload.errors.length > 0 ? payload.errors : [TOLD_BEFORE], token: null };
  };
}

const TOLD_BEFORE: UserErrorData = {
  code: 'ALREADY_EXISTS',
  message: 'This key has made a token already, and it was shown then. Use another key for another token.',
  path: ['idempotencyKey'],
};
