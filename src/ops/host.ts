import { createHash, randomBytes } from 'node:crypto';
import { emptyTransition, hold, insert } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
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

/** A secret with which so many hosts may join a cluster until it expires. It has no idempotency: each call makes one. */
export async function createHostJoinToken(context: OpsContext, actor: Actor, raw: unknown): Promise<JoinTokenPayload> {
  const token = randomBytes(32).toString('base64url');
  let expiresAt: Date | null = null;
  const make = mutation(
    'createHostJoinToken',
    { verb: 'create', kind: 'host' },
    INPUTS.createHostJoinToken,
    async (_context, input, asker) => {
      const cluster = await find(context, 'cluster', input.clusterId, ['clusterId']);
      expiresAt = new Date(Date.now() + (input.expiresInMs ?? EXPIRES_IN_MS));
      const hosts = input.maxHosts ?? 1;
      return {
        kind: 'write',
        id: cluster.id,
        jobId: null,
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
  const { idempotencyKey: _, ...input } = (raw ?? {}) as Record<string, unknown>;
  const payload = await make(context, actor, input);
  return payload.errors.length > 0 ? { ...payload, token: null, expiresAt: null } : { ...payload, token, expiresAt };
}

export const updateHost = mutation(
  'updateHost',
  { verb: 'update', kind: 'host' },
  INPUTS.updateHost,
  (context, input, asker) => update(context, 'host', input, asker),
);

export const hostSwitches = switches('host', 'Host');
