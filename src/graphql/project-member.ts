import { sql } from 'kysely';
import { mayWith } from '../domain/authorize.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { list } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { idInput, mutation, updateInput } from './mutation.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import { AccountRef, ProjectMemberRef, RoleRef, UserRef } from './refs.ts';
import type { ProjectMemberRow } from './rows.ts';

const MemberActionRef = builder.enumType('ProjectMemberAction', {
  description: 'What can be done with a member of a project.',
  values: {
    UPDATE: { description: 'Give it another role.' },
    REMOVE: { description: 'End its membership.' },
  } as const,
});
const VERB_OF = { UPDATE: 'update', REMOVE: 'delete' } as const;

ProjectMemberRef.implement({
  description:
    'Who shares a project: all users of an account, or one user, with a role that counts in the project alone.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'project_member'),
    name: t.string({
      description: 'Of the account, or of the user behind that of its account: shown to all who share the project.',
      resolve: (member, _args, context) =>
        loadersOf(context).below('project member names', member.id, async (ids) => {
          const { rows } = await sql<{ id: number; name: string }>`
            select m.id, if(user.id is null, account.name, concat(account.name, '/', user.name)) as name
            from project_member as m
            left join user on user.id = m.member_user_id
            inner join account on account.id = coalesce(user.account_id, m.member_account_id)
            where m.id in (${sql.join(ids)})`.execute(context.db);
          const names = new Map(rows.map((row) => [row.id, row.name]));
          return ids.map((id) => names.get(id)!);
        }),
    }),
    project: t.field({
      type: AccountRef,
      nullable: true,
      description: 'What is shared. Null for who may not see it.',
      resolve: (member, _args, context) => loadersOf(context).find('account', member.account_id),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description:
        'All users of this account, none with more than at home. Null when it is one user, or for who may not see it.',
      resolve: (member, _args, context) => findOf(context, 'account', member.member_account_id),
    }),
    user: t.field({
      type: UserRef,
      nullable: true,
      description: 'This one user. Null when it is a whole account, or for who may not see it.',
      resolve: (member, _args, context) => findOf(context, 'user', member.member_user_id),
    }),
    role: t.field({
      type: RoleRef,
      nullable: true,
      description: 'What it may do in the project. Null for who may not see it.',
      resolve: (member, _args, context) => loadersOf(context).find('role', member.role_id),
    }),
    allowedActions: t.field({
      type: [MemberActionRef],
      description: 'What the caller can do with it now.',
      resolve: (member, _args, { actor, inventory }) =>
        member.deleted_at === null
          ? (['UPDATE', 'REMOVE'] as const).filter((action) =>
              mayWith(actor, VERB_OF[action], 'project_member', member, inventory),
            )
          : [],
    }),
    generation: t.exposeInt('generation', {
      description: 'Grows with each change of its role; for `expectedGeneration`.',
    }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'Since when it is a member.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was removed: no list has it since. Null while it is a member.',
    }),
  }),
});

type Context = Parameters<typeof loadersOf>[0];
const findOf = <K extends 'account' | 'user'>(context: Context, kind: K, id: ProjectMemberRow['member_user_id']) =>
  id === null ? null : loadersOf(context).find(kind, id);

const ProjectMemberFilterRef = builder.inputType('ProjectMemberFilter', {
  description: 'Narrows a list of members.',
  fields: (t) => ({ roleId: t.id({ description: 'Only members of this role.' }) }),
});

const where = conditionsOn('project_member');
export const ProjectMemberList = list({
  table: 'project_member',
  ref: ProjectMemberRef,
  noun: 'ProjectMember',
  filter: ProjectMemberFilterRef,
  conditions: (filter, actor) => where.refersTo('role_id', 'role', filter.roleId, 'roleId', actor),
});

builder.queryFields((t) => ({ projectMember: lookUp(t, 'project_member') }));

mutation(
  'addProjectMember',
  'project_member',
  'Lets an account or a user share a project, with a role that has no more than the caller has there. A project has up to 1,000 members; an account, and a user, shares up to 100 projects.',
  (t) => ({
    projectId: t.id({ required: true, description: 'What is shared.' }),
    accountId: t.id({ description: 'With all users of this account; or' }),
    userId: t.id({ description: 'with this one user.' }),
    roleId: t.id({ required: true, description: 'What they may do there; one that reaches ACCOUNT.' }),
  }),
);
mutation('updateProjectMember', 'project_member', 'Gives a member another role.', (t) => ({
  ...updateInput(t, 'project member'),
  roleId: t.id({ required: true, description: 'Another role.' }),
}));
mutation('removeProjectMember', 'project_member', 'Ends a membership, and what the members have open.', (t) =>
  idInput(t, 'project member'),
);
