import { emptyTransition, hold, insert } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import type { OpsContext, Via } from './context.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { find, switches, update } from './named-resource.ts';
import { type TokenPayload, toldOnce } from './told-once.ts';

const EXPIRES_IN_MS = 3_600_000;

export interface JoinTokenPayload extends TokenPayload {
  expiresAt: Date | null;
}

/** A secret with which so many hosts may join a cluster until it expires. */
export async function createHostJoinToken(
  context: OpsContext,
  actor: Actor,
  raw: unknown,
  via: Via,
): Promise<JoinTokenPayload> {
  let expiresAt: Date | null = null;
  const make = toldOnce(
    'createHostJoinToken',
    'vgj',
    { verb: 'create', kind: 'host' },
    INPUTS.createHostJoinToken,
    async (_context, input, asker, hash) => {
      const cluster = await find(context, 'cluster', input.clusterId, ['clusterId'], asker.actor);
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
              token_hash: hash,
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
  const payload = await make(context, actor, raw, via);
  return { ...payload, expiresAt: payload.token === null ? null : expiresAt };
}

export const updateHost = mutation(
  'updateHost',
  { verb: 'update', kind: 'host' },
  INPUTS.updateHost,
  (context, input, asker) => update(context, 'host', input, asker),
);

export const hostSwitches = switches('host', 'Host');
