import { newUid } from '../db/ids.ts';
import type { Account, ProjectMember } from '../db/tables.ts';
import {
  absent,
  type Change,
  emptyTransition,
  hold,
  insert,
  now,
  patch,
  plus,
  type Transition,
} from '../db/transition.ts';
import { type AccountType, rightsIn } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { FieldChange } from '../domain/kinds.ts';
import { type RoleRow, rightsOfRole } from '../domain/permission.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { oneMoreMember } from './membership-bounds.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { type Also, find, mustBeGeneration, told } from './named-resource.ts';
import { mustHaveRightWith, mustNotExceedRights, roleOf } from './rights.ts';

/** A role for a project: about what is in it, and no more than the asker has there himself. @throws VirtgraphError */
async function projectRole(context: OpsContext, id: string, project: { id: number }, asker: Asker) {
  const role = await find(context, 'role', id, ['roleId'], asker.actor);
  if (role.reach !== 'ACCOUNT')
    throw new VirtgraphError({
      code: 'INVALID_INPUT',
      message: `The role ${role.name} reaches further than a project: take one that reaches ACCOUNT.`,
      path: ['roleId'],
    });
  mustNotExceedThere(context, role, project.id, asker, `The role ${role.name}`, ['roleId']);
  return role;
}

function mustNotExceedThere(
  { inventory }: OpsContext,
  role: RoleRow,
  projectId: number,
  { actor }: Asker,
  whose: string,
  path: string[],
): void {
  mustNotExceedRights(rightsIn(actor, projectId, inventory), rightsOfRole(role), whose, path);
}

export const addProjectMember = mutation(
  'addProjectMember',
  { verb: 'create', kind: 'project_member' },
  INPUTS.addProjectMember,
  async (context, input, asker) => {
    const project = await find(context, 'account', input.projectId, ['projectId'], asker.actor);
    await mustHaveRightWith(context, asker, 'project_member', { account_id: project.id });
    const { column, kind, row } = await memberOf(context, input, asker);
    const role = await projectRole(context, input.roleId, project, asker);
    mustBeProject(project);
    mustHaveUsers(row);
    const room = await oneMoreMember(context, project, { table: kind, id: row.id, name: row.name });
    const id = await context.ids.take();
    return {
      kind: 'write',
      id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          ...room,
          hold('role', role.id),
          insert('project_member', {
            id,
            uid: newUid(),
            account_id: project.id,
            member_account_id: null,
            member_user_id: null,
            role_id: role.id,
            [column]: row.id,
          }),
        ],
        changes: [
          { kind: 'project_member', id },
          // What they may do has changed: they are looked up anew.
          { kind, id: row.id },
        ],
        events: [
          told('project_member', { id, account_id: project.id }, 'added', asker, [
            roleOfMember(row.name, null, role.name),
          ]),
        ],
      },
    };
  },
);

export const updateProjectMember = mutation(
  'updateProjectMember',
  { verb: 'update', kind: 'project_member' },
  INPUTS.updateProjectMember,
  async (context, input, asker) => {
    const member = await findMember(context, input.id, asker);
    mustBeGeneration(member, input.expectedGeneration);
    const role = await projectRole(context, input.roleId, { id: member.account_id }, asker);
    if (role.id === member.role_id) return { kind: 'already', id: member.id };
    const before = await mayBeChanged(context, member, asker);
    return written(
      context,
      member,
      {
        writes: [
          hold('role', role.id),
          patch(
            'project_member',
            member.id,
            { generation: member.generation, deleted_at: null },
            { role_id: role.id, generation: plus(1) },
          ),
        ],
      },
      { asker, what: 'updated', before, after: role.name },
    );
  },
);

export const removeProjectMember = mutation(
  'removeProjectMember',
  { verb: 'delete', kind: 'project_member' },
  INPUTS.removeProjectMember,
  async (context, input, asker) => {
    const member = await findMember(context, input.id, asker);
    const before = await mayBeChanged(context, member, asker);
    const gone = patch('project_member', member.id, { deleted_at: null }, { deleted_at: now });
    return written(context, member, { writes: [gone] }, { asker, what: 'removed', before, after: null });
  },
);

/** @returns the name of its role. @throws VirtgraphError FORBIDDEN for a member who has more there than the asker */
async function mayBeChanged(context: OpsContext, member: ProjectMember, asker: Asker): Promise<string> {
  const role = await roleOf(context, member.role_id);
  mustNotExceedThere(context, role, member.account_id, asker, 'This member', ['id']);
  return role.name;
}

async function written(
  { db }: OpsContext,
  member: ProjectMember,
  { writes }: Pick<Transition, 'writes'>,
  { asker, what, before, after }: { asker: Asker; what: string; before: string; after: string | null },
): Promise<Decision> {
  const [table, id] = member.member_user_id
    ? (['user', member.member_user_id] as const)
    : (['account', member.member_account_id!] as const);
  const { name } = await db
    .selectFrom(table as 'account')
    .select('name')
    .where('id', '=', id)
    .executeTakeFirstOrThrow();
  return {
    kind: 'write',
    id: member.id,
    jobId: null,
    transition: {
      ...emptyTransition(),
      writes,
      changes: [{ kind: 'project_member', id: member.id }],
      events: [told('project_member', member, what, asker, [roleOfMember(name, before, after)])],
    },
  };
}

const roleOfMember = (name: string, before: string | null, after: string | null): FieldChange => ({
  field: `role of ${name}`,
  before,
  after,
});

/** @throws VirtgraphError NOT_FOUND, FORBIDDEN */
async function findMember(context: OpsContext, id: string, asker: Asker): Promise<ProjectMember> {
  const member = await find(context, 'project_member', id, ['id'], asker.actor);
  await mustHaveRightWith(context, asker, 'project_member', member);
  return member;
}

/** @throws VirtgraphError INVALID_INPUT */
function mustBeProject(account: Account): void {
  if (account.type === 'PROJECT') return;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `${account.name} is no project: it has users of its own, and no members.`,
    path: ['projectId'],
  });
}

interface Who {
  accountId?: string | null | undefined;
  userId?: string | null | undefined;
}

/** @throws VirtgraphError INVALID_INPUT, NOT_FOUND */
async function memberOf(context: OpsContext, { accountId, userId }: Who, { actor }: Asker) {
  const account = accountId == null ? null : await find(context, 'account', accountId, ['accountId'], actor);
  const user = userId == null ? null : await find(context, 'user', userId, ['userId'], actor);
  if (user && !account) return { kind: 'user' as const, column: 'member_user_id', row: user };
  if (account && !user) return { kind: 'account' as const, column: 'member_account_id', row: account };
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: 'A member is either an account, with all its users, or one user: give one of the two.',
    path: ['userId'],
  });
}

/** @throws VirtgraphError INVALID_INPUT */
function mustHaveUsers(row: { name: string; type?: AccountType }): void {
  if (row.type !== 'PROJECT') return;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `${row.name} is a project: it has no users who could be members.`,
    path: ['accountId'],
  });
}

/** Memberships that go with what is deleted, and none that is made meanwhile: whoever makes one holds it. */
export async function membershipsGo(
  { db }: OpsContext,
  columns: ('account_id' | 'member_account_id' | 'member_user_id')[],
  id: number,
): Promise<Also> {
  const members = await db
    .selectFrom('project_member')
    .select('id')
    .where((where) => where.or(columns.map((column) => where(column, '=', id))))
    .where('deleted_at', 'is', null)
    .execute();
  return {
    writes: [
      ...members.map((member) => patch('project_member', member.id, { deleted_at: null }, { deleted_at: now })),
      ...columns.map((column) => absent('project_member', column, id)),
    ],
    changes: members.map((member): Change => ({ kind: 'project_member', id: member.id })),
  };
}
