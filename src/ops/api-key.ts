import { sql } from 'kysely';
import { newUid } from '../db/ids.ts';
import { type Computed, emptyTransition, hold, inMs, insert, now, patch } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { both, rightsOfRole } from '../domain/permission.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { find, told } from './named-resource.ts';
import { mustHaveRightWith, mustNotExceed, roleOf } from './rights.ts';
import { toldOnce } from './told-once.ts';
import { grantableRole } from './user.ts';

const isOwn = ({ actor }: Asker, userId: number): boolean => actor.kind === 'user' && actor.userId === userId;

/**
 * A key of one's own may have as much as the one that is used; keys of others are for who may change them, and has all
 * that they have. What somebody may do in a project says nothing of keys, which are of users.
 *
 * @throws VirtgraphError FORBIDDEN
 */
async function mustRule(
  context: OpsContext,
  key: { user_id: number; role_id: number | null; account_id: number },
  asker: Asker,
  path: string[],
): Promise<void> {
  const own = isOwn(asker, key.user_id);
  const owner = { account_id: key.account_id };
  await mustHaveRightWith(context, asker, 'api_key', owner);
  if (!own) await mustHaveRightWith(context, { ...asker, verb: 'update' }, 'user', owner);
  const user = await context.db
    .selectFrom('user')
    .select(['name', 'role_id'])
    .where('id', '=', key.user_id)
    .executeTakeFirstOrThrow();
  const given = rightsOfRole(await roleOf(context, user.role_id));
  const rights = own && key.role_id !== null ? both(given, rightsOfRole(await roleOf(context, key.role_id))) : given;
  mustNotExceed(asker, rights, own ? 'The key' : `The user ${user.name}`, path);
}

/** A secret with which programs act as a user, with no more than the user's role, and the key's, allow. */
export const createApiKey = toldOnce(
  'createApiKey',
  'vgk',
  { verb: 'create', kind: 'api_key' },
  INPUTS.createApiKey,
  async (context, input, asker, hash) => {
    const user = await find(context, 'user', input.userId, ['userId'], asker.actor);
    const role = input.roleId == null ? null : await grantableRole(context, input.roleId, asker);
    const owner = { user_id: user.id, account_id: user.account_id };
    await mustRule(context, { ...owner, role_id: role?.id ?? null }, asker, ['userId']);
    // A key of another's does not grow with him: whoever made it would have what he himself was never given.
    const roleId = role?.id ?? (isOwn(asker, user.id) ? null : user.role_id);
    const id = await context.ids.take();
    const key = { id, uid: newUid(), ...owner, role_id: roleId, name: input.name };
    const end = await endOf(context, input.expiresInMs ?? null, asker);
    return {
      kind: 'write',
      id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          hold('user', user.id),
          ...(roleId === null ? [] : [hold('role', roleId)]),
          insert('api_key', { ...key, key_hash: hash, expires_at: end }),
        ],
        changes: [{ kind: 'api_key', id }],
        events: [told('api_key', key, 'created', asker, [{ field: 'name', before: null, after: key.name }])],
      },
    };
  },
);

/**
 * When a key ends; one that is made with a key that ends, no later than that. Null: never.
 *
 * @throws VirtgraphError FORBIDDEN
 */
async function endOf({ db }: OpsContext, wantedMs: number | null, { actor }: Asker): Promise<string | Computed | null> {
  const wanted = wantedMs === null ? null : inMs(wantedMs);
  // A session is opened with all that its user can show; a key that it makes is a thing of its own.
  if (actor.kind !== 'user' || actor.credential.kind !== 'api_key') return wanted;
  const { expires_at: end, leftMs } = await db
    .selectFrom('api_key')
    .select(['expires_at', sql<number>`TIMESTAMPDIFF(MICROSECOND, NOW(6), expires_at) DIV 1000`.as('leftMs')])
    .where('id', '=', actor.credential.id)
    .executeTakeFirstOrThrow();
  if (end === null) return wanted;
  if (wantedMs === null) return end;
  if (wantedMs <= leftMs) return wanted;
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `The key that you use ends in ${Math.ceil(leftMs / 60_000)} min; one that is made with it can not last longer.`,
    path: ['expiresInMs'],
  });
}

/** From its commit on nothing is answered to the key, and what it has open ends. */
export const revokeApiKey = mutation(
  'revokeApiKey',
  { verb: 'delete', kind: 'api_key' },
  INPUTS.revokeApiKey,
  async (context, input, asker) => {
    const key = await find(context, 'api_key', input.id, ['id'], asker.actor);
    await mustRule(context, key, asker, ['id']);
    return {
      kind: 'write',
      id: key.id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [patch('api_key', key.id, { deleted_at: null }, { deleted_at: now })],
        changes: [{ kind: 'api_key', id: key.id }],
        events: [told('api_key', key, 'revoked', asker, [{ field: 'name', before: key.name, after: null }])],
      },
    };
  },
);
