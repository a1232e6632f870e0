import { createHash, randomBytes } from 'node:crypto';
import { emptyTransition, hold, insert } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import type { UserErrorData } from '../domain/errors.ts';
import type { OpsContext, Payload } from './context.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { find, switches, update } from './named-resource.ts';

const EXPIRES_IN_MS = 3_600_000;

export interface JoinTokenPayload extends Payload {
  /** Shown this once; only its hash is kept. */
  token: string | null;
  expiresAt: Date | null;
}

/**
 * A secret with which so many hosts may join a cluster until it expires. Repeated with its key it makes no second one, and
 * cannot tell the first again: only its hash is kept.
 */
export async function createHostJoinToken(context: OpsContext, actor: Actor, raw: unknown): Promise<JoinTokenPayload> {
  // A prefix, so that it never begins with a dash, which a command line takes for an option.
  const token = `vgj_${randomBytes(32).toString('base64url')}`;
  let expiresAt: Date | null = null;
  let made = false;
  const make = mutation(
    'createHostJoinToken',
    { verb: 'create', kind: 'host' },
    INPUTS.createHostJoinToken,
    async (_context, input, asker) => {
      const cluster = await find(context, 'cluster', input.clusterId, ['clusterId'], asker.actor);
      expiresAt = new Date(Date.now() + (input.expiresInMs ?? EXPIRES_IN_MS));
      const hosts = input.maxHosts ?? 1;
      return {
        kind: 'write',
        id: cluster.id,
        jobId: null,
        settle: (written) => {
          made = written;
        },
        transition: {
          ...emptyTransition(),
          writes: [
            hold('cluster', cluster.id),
            insert('host_join_token', {
              id: await context.ids.take(),
              cluster_id: cluster.id,
              token_hash: createHash('sha256').update(token).digest(),
              hosts_max: hosts,
              expires_at: expiresAt,
            }),
          ],
          // Nothing of it has changed that is shown: but followers of events are woken by changes.
          changes: [{ kind: 'cluster', id: cluster.id }],
          events: [
            {
              type: 'cluster.join_token_created',
              subject: { kind: 'cluster', id: cluster.id },
              jobId: null,
              actor: asker.name,
              reason: asker.reason,
              changes: [{ field: 'maxHosts', before: null, after: String(hosts) }],
            },
          ],
        },
      };
    },
  );
  const payload = await make(context, actor, raw);
  if (made) return { ...payload, token, expiresAt };
  const errors = payload.errors.length > 0 ? payload.errors : [TOLD_BEFORE];
  return { id: null, jobId: null, errors, token: null, expiresAt: null };
}

const TOLD_BEFORE: UserErrorData = {
  code: 'ALREADY_EXISTS',
  message: 'This key has made a token already, and it was shown then. Use another key for another token.',
  path: ['idempotencyKey'],
};

export const updateHost = mutation(
  'updateHost',
  { verb: 'update', kind: 'host' },
  INPUTS.updateHost,
  (context, input, asker) => update(context, 'host', input, asker),
);

export const hostSwitches = switches('host', 'Host');
