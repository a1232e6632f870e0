import { VirtgraphError } from '../domain/errors.ts';
import type { FieldChange } from '../domain/kinds.ts';
import { permissionsOf, type Reach, type RoleRow, type Rule, rightsOfRole, rulesOf } from '../domain/permission.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { create, remove, update } from './named-resource.ts';
import { mustNotExceed, mustReachAll } from './rights.ts';

/** @throws VirtgraphError FORBIDDEN */
const mustBeGrantable = (asker: Asker, reach: Reach, rules: readonly Rule[]): void =>
  mustNotExceed(asker, { reach, permissions: permissionsOf(rules) }, 'Such a role', ['rules']);

export const createRole = mutation(
  'createRole',
  { verb: 'create', kind: 'role' },
  INPUTS.createRole,
  async (context, { name, reach, rules }, asker) => {
    mustReachAll(asker);
    mustBeGrantable(asker, reach, rules);
    return create(context, 'role', asker, { name, reach, rules: JSON.stringify(rules) });
  },
);

/** It is everybody's who has it, at once. */
export const updateRole = mutation(
  'updateRole',
  { verb: 'update', kind: 'role' },
  INPUTS.updateRole,
  (context, input, asker) =>
    update(context, 'role', input, asker, async (row) => {
      mustBeOurs(row, asker);
      const before = rulesOf(row);
      const [reach, rules] = [input.reach ?? row.reach, input.rules ?? before];
      mustBeGrantable(asker, reach, rules);
      const changes: FieldChange[] = [];
      if (reach !== row.reach) changes.push({ field: 'reach', before: row.reach, after: reach });
      if (inWords(rules) !== inWords(before))
        changes.push({ field: 'rules', before: inWords(before), after: inWords(rules) });
      return { set: changes.length === 0 ? {} : { reach, rules: JSON.stringify(rules) }, changes };
    }),
);

export const deleteRole = remove('role', 'deleteRole', { guard: (_context, row, asker) => mustBeOurs(row, asker) });

/** `ALLOW read vm, DENY * *` */
const inWords = (rules: readonly Rule[]): string =>
  rules.map(({ effect, verb, kind }) => `${effect} ${verb} ${kind}`).join(', ');

/** @throws VirtgraphError INVALID_STATE, FORBIDDEN */
function mustBeOurs(role: RoleRow & { name: string; built_in: number }, asker: Asker): void {
  mustReachAll(asker, ['id']);
  if (role.built_in)
    throw new VirtgraphError({
      code: 'INVALID_STATE',
      message: `Every installation has the role ${role.name}: it stays as it is.`,
      path: ['id'],
      state: 'BUILT_IN',
      allowedActions: [],
    });
  mustNotExceed(asker, rightsOfRole(role), `The role ${role.name}`, ['id']);
}
