import { emptyTransition, hold, insert, now, patch, plus } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import { PAST_ALL_ISSUED } from '../domain/host-state.ts';
import type { OpsContext, Via } from './context.ts';
import { INPUTS, type Inputs } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { find, switches, told, update } from './named-resource.ts';
import { type TokenPayload, toldOnce } from './told-once.ts';

const EXPIRES_IN_MS = 3_600_000;

export interface JoinTokenPayload extends TokenPayload {
  expiresAt: Date | null;
}

/**
 * A secret with which so many hosts may join a cluster, or one that is there already may join again, until it expires.
 * The fingerprint of the authority goes with it, so that a host knows whom it joins.
 */
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
      const { clusterId, hostId } = await admitted(context, input, asker);
      expiresAt = new Date(Date.now() + (input.expiresInMs ?? EXPIRES_IN_MS));
      const hosts = input.maxHosts ?? 1;
      const subject =
        hostId === null ? { kind: 'cluster' as const, id: clusterId } : { kind: 'host' as const, id: hostId };
      return {
        kind: 'write',
        id: clusterId,
        jobId: null,
        transition: {
          ...emptyTransition(),
          writes: [
            hold('cluster', clusterId),
            insert('host_join_token', {
              id: await context.ids.take(),
              cluster_id: clusterId,
              host_id: hostId,
              token_hash: hash,
              hosts_max: hosts,
              expires_at: expiresAt,
            }),
          ],
          // Nothing of it has changed that is shown: but followers of events are woken by changes.
          changes: [subject],
          events: [
            told(subject.kind, subject, 'join_token_created', asker, [
              { field: 'maxHosts', before: null, after: String(hosts) },
            ]),
          ],
        },
      };
    },
  );
  const payload = await make(context, actor, raw, via);
  if (payload.token === null) return { ...payload, expiresAt: null };
  const token = `${payload.token}.${context.authority.fingerprint.toString('base64url')}`;
  return { ...payload, token, expiresAt };
}

/** Who may join: new hosts of a cluster, or one of its hosts again. @throws VirtgraphError NOT_FOUND */
async function admitted(
  context: OpsContext,
  input: Inputs['createHostJoinToken'],
  { actor }: Asker,
): Promise<{ clusterId: number; hostId: number | null }> {
  if (input.hostId != null) {
    const host = await find(context, 'host', input.hostId, ['hostId'], actor);
    return { clusterId: host.cluster_id, hostId: host.id };
  }
  const cluster = await find(context, 'cluster', input.clusterId ?? '', ['clusterId'], actor);
  return { clusterId: cluster.id, hostId: null };
}

/** Nothing of the host is heard from its commit on, until it has joined again. */
export const revokeHostCertificate = mutation(
  'revokeHostCertificate',
  { verb: 'update', kind: 'host' },
  INPUTS.revokeHostCertificate,
  async (context, input, asker) => {
    const host = await find(context, 'host', input.id, ['id'], asker.actor);
    if (host.certificate_revoked_at !== null) return { kind: 'already', id: host.id };
    const { certificate_floor } = host;
    return {
      kind: 'write',
      id: host.id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          patch(
            'host',
            host.id,
            { certificate_floor, certificate_revoked_at: null, deleted_at: null },
            {
              certificate_floor: certificate_floor + PAST_ALL_ISSUED,
              certificate_revoked_at: now,
              generation: plus(1),
            },
          ),
        ],
        changes: [{ kind: 'host', id: host.id }],
        events: [told('host', host, 'certificate_revoked', asker, [])],
      },
    };
  },
);

export const updateHost = mutation(
  'updateHost',
  { verb: 'update', kind: 'host' },
  INPUTS.updateHost,
  (context, input, asker) => update(context, 'host', input, asker),
);

export const hostSwitches = switches('host', 'Host');
