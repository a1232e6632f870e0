import { isKept, isOperators, mayWith, restsOn, rightsOf } from '../domain/authorize.ts';
import type { WantedState } from '../domain/host-state.ts';
import { mappingOf } from '../domain/identity-provider.ts';
import { excess, rightsOfRole, type Verb } from '../domain/permission.ts';
import { builder, type GraphTypes } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList } from './connection.ts';
import type { GraphContext, WantedKind } from './context.ts';
import { EventList } from './event.ts';
import { idField } from './node.ts';
import type { ZoneRow } from './rows.ts';

export const WantedStateRef = builder.enumType('WantedState', {
  description: 'What is wanted of something that may be switched off.',
  values: {
    ENABLED: { description: 'It takes what is new.' },
    DISABLED: {
      description:
        'It takes nothing new, and nobody of a disabled domain, account, user or identity provider is let in. What it has ' +
        'runs on.',
    },
  } as const,
});

const ResourceActionRef = builder.enumType('ResourceAction', {
  description: 'What can be done with what exists.',
  values: {
    ENABLE: { description: 'Let it take what is new.' },
    DISABLE: { description: 'Let it take nothing new.' },
    UPDATE: { description: 'Change what is known of it.' },
    DELETE: { description: 'Delete it; refused with NOT_EMPTY while something is inside.' },
  } as const,
});
type ResourceAction = typeof ResourceActionRef.$inferType;

const VERB_OF: Record<ResourceAction, Verb> = {
  ENABLE: 'update',
  DISABLE: 'update',
  UPDATE: 'update',
  DELETE: 'delete',
};
const ACTIONS: Record<WantedState, ResourceAction[]> = {
  ENABLED: ['DISABLE', 'UPDATE', 'DELETE'],
  DISABLED: ['ENABLE', 'UPDATE', 'DELETE'],
};

/** What a role allows, and would be refused for this very object. */
function isRefused({ actor, inventory }: GraphContext, kind: WantedKind, row: Named, action: ResourceAction): boolean {
  const { id, role_id, role_mapping } = row;
  if ((kind === 'domain' || kind === 'identity_provider') && rightsOf(actor).reach === 'ACCOUNT') return true;
  const roleIds = role_mapping === undefined ? [role_id] : mappingOf({ role_mapping }).map((mapped) => mapped.roleId);
  const roles =
    actor.kind === 'user' ? roleIds.map((one) => (one === undefined ? one : inventory.get('role', one))) : [];
  if (isOperators(actor, kind, row)) return true;
  if (roles.some((role) => role && excess(rightsOfRole(role), rightsOf(actor)).length > 0)) return true;
  return (action === 'DISABLE' || action === 'DELETE') && (isKept(kind, id) || restsOn(actor, { kind, id }));
}

/** Columns that every kind which operators arrange has. */
type Named = Pick<
  ZoneRow,
  'id' | 'uid' | 'name' | 'generation' | 'created_at' | 'updated_at' | 'deleted_at' | 'wanted_state'
> & { role_id?: number; role_mapping?: string; account_id?: number | null };

/** The fields that every kind which operators arrange has. */
export function namedFields<P extends Named>(
  builderOfFields: PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, P>,
  kind: WantedKind,
) {
  const t = builderOfFields as unknown as PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, ZoneRow>;
  return {
    id: idField(t as never, kind),
    name: t.exposeString('name', { description: 'As people call it; unique among its siblings.' }),
    wantedState: t.expose('wanted_state', { type: WantedStateRef, description: 'What operators want of it.' }),
    allowedActions: t.field({
      type: [ResourceActionRef],
      description: 'What the caller can do with it now.',
      resolve: (row, _args, context) =>
        row.deleted_at === null
          ? ACTIONS[row.wanted_state].filter(
              (action) =>
                mayWith(context.actor, VERB_OF[action], kind, row, context.inventory) &&
                !isRefused(context, kind, row, action),
            )
          : [],
    }),
    ...lifeFields(t),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: kind,
      condition: conditionsOn('event').is('subject_kind', kind)[0]!,
    }),
  };
}

/** When it came, changed and went, and how often it was changed. */
export function lifeFields(t: PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, ZoneRow>) {
  return {
    generation: t.exposeInt('generation', {
      description: 'Grows with each change of what is wanted; for `expectedGeneration`.',
    }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was created.' }),
    updatedAt: t.expose('updated_at', { type: 'DateTime', description: 'When anything of it changed last.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was deleted: no list has it since. Null while it lives.',
    }),
  };
}
