import { rulesOf } from '../domain/permission.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { EventList } from './event.ts';
import { deletion, mutation, updateInput } from './mutation.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import { PermissionKindRef, PermissionVerbRef, ReachRef, RuleEffectRef } from './permission.ts';
import { RoleRef } from './refs.ts';
import { lifeFields } from './resource.ts';
import { UserList } from './user.ts';

const RuleRef = builder.objectRef<ReturnType<typeof rulesOf>[number]>('RoleRule').implement({
  description: 'What a role says of a verb and a kind. The first rule of a role that fits decides.',
  fields: (t) => ({
    effect: t.expose('effect', { type: RuleEffectRef, description: 'Whether it may be done.' }),
    verb: t.expose('verb', { type: PermissionVerbRef, description: 'What.' }),
    kind: t.expose('kind', { type: PermissionKindRef, description: 'With which kind of things.' }),
  }),
});

RoleRef.implement({
  description: 'What users and keys may do. Who reaches everything arranges roles; who may grant one may read it.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'role'),
    name: t.exposeString('name', { description: 'As people call it; unique.' }),
    reach: t.expose('reach', { type: ReachRef, description: 'Whose things its rules are about.' }),
    rules: t.field({
      type: [RuleRef],
      description: 'The first that fits decides; what none of them speaks of is denied.',
      resolve: (role) => [...rulesOf(role)],
    }),
    builtIn: t.boolean({
      description: 'Every installation has it, and it stays as it is.',
      resolve: (role) => role.built_in === 1,
    }),
    ...lifeFields(t as never),
    users: childList(t, UserList, 'Who has it.', 'role_id'),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: 'role',
      condition: conditionsOn('event').is('subject_kind', 'role')[0]!,
    }),
  }),
});

const RoleFilterRef = builder.inputType('RoleFilter', {
  description: 'Narrows a list of roles.',
  fields: (t) => ({
    name: t.string({ description: 'Only the role of exactly this name.' }),
    namePrefix: t.string({ description: 'Only roles whose name begins so.' }),
    reach: t.field({ type: ReachRef, description: 'Only roles of this reach.' }),
  }),
});

const where = conditionsOn('role');
const RoleList = list({
  table: 'role',
  ref: RoleRef,
  noun: 'Role',
  filter: RoleFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter) => [
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('reach', filter.reach),
  ],
});

builder.queryFields((t) => ({
  role: lookUp(t, 'role'),
  roles: rootList(t, RoleList, 'The roles that reach no further than the caller.'),
}));

const RuleInputRef = builder.inputType('RoleRuleInput', {
  description: 'What a role says of a verb and a kind.',
  fields: (t) => ({
    effect: t.field({ type: RuleEffectRef, required: true, description: 'Whether it may be done.' }),
    verb: t.field({ type: PermissionVerbRef, required: true, description: 'What.' }),
    kind: t.field({ type: PermissionKindRef, required: true, description: 'With which kind of things.' }),
  }),
});

mutation('createRole', 'role', 'Makes a role that has no more than the caller.', (t) => ({
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  reach: t.field({ type: ReachRef, required: true, description: 'Whose things it is about.' }),
  rules: t.field({ type: [RuleInputRef], required: true, description: 'In order: the first that fits decides.' }),
}));
mutation('updateRole', 'role', 'Changes a role, for all who have it at once.', (t) => ({
  ...updateInput(t, 'role'),
  name: t.string({ description: 'A new name.' }),
  reach: t.field({ type: ReachRef, description: 'Whose things it is about.' }),
  rules: t.field({ type: [RuleInputRef], description: 'All rules anew.' }),
}));
deletion('deleteRole', 'Role', 'Deletes a role that no user and no key has.');
