import type { Account } from '../db/tables.ts';
import { absent, hold, now, patch } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { rightsOfRole } from '../domain/permission.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';
import { membershipsGo } from './project-member.ts';
import { mayGo, mustNotExceed, mustOutrank, roleOf } from './rights.ts';

/** The role of an id, which the asker may give. @throws VirtgraphError NOT_FOUND, FORBIDDEN */
export async function grantableRole(context: OpsContext, id: string, asker: Asker, path = ['roleId']) {
  const role = await find(context, 'role', id, path, asker.actor);
  mustNotExceed(asker, rightsOfRole(role), `The role ${role.name}`, path);
  return role;
}

/** @throws VirtgraphError INVALID_INPUT for a project */
export function mustHaveUsers(account: Pick<Account, 'name' | 'type'>): void {
  if (account.type !== 'PROJECT') return;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `${account.name} is a project: it has members instead of users of its own.`,
    path: ['accountId'],
  });
}

export const createUser = mutation(
  'createUser',
  { verb: 'create', kind: 'user' },
  INPUTS.createUser,
  async (context, { name, accountId, roleId, password }, asker) => {
    const account = await find(context, 'account', accountId, ['accountId'], asker.actor);
    mustHaveUsers(account);
    const role = await grantableRole(context, roleId, asker);
    const row = {
      account_id: account.id,
      role_id: role.id,
      name,
      password_hash: password == null ? null : await context.passwords.hash(password),
      password_changed_at: password == null ? null : new Date(),
    };
    return create(context, 'user', asker, row, [hold('account', account.id), hold('role', role.id)]);
  },
);

export const updateUser = mutation(
  'updateUser',
  { verb: 'update', kind: 'user' },
  INPUTS.updateUser,
  (context, input, asker) =>
    update(context, 'user', input, asker, async (user) => {
      await mustOutrank(context, user, asker, ['id']);
      const role = input.roleId == null ? null : await grantableRole(context, input.roleId, asker);
      if (!role || role.id === user.role_id) return { set: {}, changes: [] };
      const before = await roleOf(context, user.role_id);
      return {
        set: { role_id: role.id },
        changes: [{ field: 'role', before: before.name, after: role.name }],
        also: { writes: [hold('role', role.id)], changes: [] },
      };
    }),
);

export const userSwitches = switches('user', 'User', {
  async guard(context, user, asker, wanted) {
    mayGo('user', user.id, asker, wanted);
    await mustOutrank(context, user, asker, ['id']);
  },
  /** All keys, sessions and memberships, and none that is made meanwhile: whoever makes one holds the user. */
  async along(context, user) {
    const memberships = await membershipsGo(context, ['member_user_id'], user.id);
    const ended = [];
    for (const kind of ['api_key', 'session'] as const) {
      const query = context.db
        .selectFrom(kind)
        .select('id')
        .where('user_id', '=', user.id)
        .where('deleted_at', 'is', null);
      for (const { id } of await query.execute()) ended.push({ kind, id });
    }
    return {
      writes: [
        ...ended.map(({ kind, id }) => patch(kind, id, { deleted_at: null }, { deleted_at: now })),
        absent('api_key', 'user_id', user.id),
        absent('session', 'user_id', user.id),
        ...memberships.writes,
      ],
      changes: [...ended, ...memberships.changes],
    };
  },
});
