import { type Actor, actorName, type Credential, domainsOf, rightsOf, type UserActor } from '../domain/authorize.ts';
import type { GuardedKind, Permissions, Verb } from '../domain/permission.ts';
import { builder } from './builder.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';
import { PermissionRef, ReachRef } from './permission.ts';
import { AccountRef, ApiKeyRef, DomainRef, SessionRef, UserRef } from './refs.ts';

type Known = Exclude<Actor, { kind: 'anonymous' }>;
const asUser = (actor: Known): UserActor | null => (actor.kind === 'user' ? actor : null);

/** The id of the key or session that is used. */
const credentialOf = (actor: Known, kind: Credential['kind']): number | undefined => {
  const credential = asUser(actor)?.credential;
  return credential?.kind === kind ? credential.id : undefined;
};

const ViewerKindRef = builder.enumType('ViewerKind', {
  description: 'What a caller is.',
  values: {
    ROOT_ADMIN: { description: 'May do everything.', value: 'root-admin' },
    USER: { description: 'Someone of an account.', value: 'user' },
    SYSTEM: { description: 'Virtgraph itself; it never comes from outside.', value: 'system' },
  } as const,
});

const ViewerProjectRef = builder.objectRef<{ id: number; permissions: Permissions }>('ViewerProject').implement({
  description: 'A project that the caller shares.',
  fields: (t) => ({
    project: t.field({
      type: AccountRef,
      nullable: true,
      description: 'What is shared. Null for who may not look at it.',
      resolve: ({ id }, _args, context) => find(context, 'account', id),
    }),
    permissions: t.field({
      type: [PermissionRef],
      description: 'What the caller may do in it.',
      resolve: ({ permissions }) => listed(permissions),
    }),
  }),
});

const listed = (permissions: Permissions) =>
  [...permissions].map((permission) => {
    const [verb, kind] = permission.split(' ') as [Verb, GuardedKind];
    return { verb, kind };
  });

const ViewerRef = builder.objectRef<Known>('Viewer').implement({
  description: 'Who is asking.',
  fields: (t) => ({
    name: t.string({ description: 'As it stands in jobs and events.', resolve: actorName }),
    kind: t.expose('kind', { type: ViewerKindRef, description: 'What it is.' }),
    user: t.field({
      type: UserRef,
      nullable: true,
      description: 'Whom the token stands for; its role is one of what decides. Null for root.',
      resolve: (viewer, _args, context) => find(context, 'user', asUser(viewer)?.userId),
    }),
    apiKey: t.field({
      type: ApiKeyRef,
      nullable: true,
      description: 'The key that is used; its role is the other. Null for root, and for who has signed in.',
      resolve: (viewer, _args, context) => find(context, 'api_key', credentialOf(viewer, 'api_key')),
    }),
    session: t.field({
      type: SessionRef,
      nullable: true,
      description: 'The session that is used. Null for root, and for a key.',
      resolve: (viewer, _args, context) => find(context, 'session', credentialOf(viewer, 'session')),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whom it acts for. Null for root.',
      resolve: (viewer, _args, context) => find(context, 'account', asUser(viewer)?.accountId),
    }),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Where the account stands. Null for root.',
      resolve: (viewer, _args, context) => {
        const user = asUser(viewer);
        return find(context, 'domain', user ? domainsOf(user.domainPath).at(-1) : undefined);
      },
    }),
    reach: t.field({
      type: ReachRef,
      description: 'Whose things it may do this with: what the roles of user and key both reach.',
      resolve: (viewer) => rightsOf(viewer).reach,
    }),
    permissions: t.field({
      type: [PermissionRef],
      description:
        'All that it may do: what the roles of user and key both allow. What is not here, and in none of its projects, is FORBIDDEN.',
      resolve: (viewer) => listed(rightsOf(viewer).permissions),
    }),
    projects: t.field({
      type: [ViewerProjectRef],
      description: 'The projects that it shares, each with what it may do there.',
      resolve: (viewer) => [...(asUser(viewer)?.projects ?? [])].map(([id, { permissions }]) => ({ id, permissions })),
    }),
  }),
});

const find = <K extends 'user' | 'api_key' | 'session' | 'account' | 'domain'>(
  context: GraphContext,
  kind: K,
  id?: number,
) => (id === undefined ? null : loadersOf(context).find(kind, id));

builder.queryField('viewer', (t) =>
  t.field({
    type: ViewerRef,
    nullable: true,
    description: 'Who is asking; null for someone who has not said.',
    resolve: (_root, _args, { actor }) => (actor.kind === 'anonymous' ? null : actor),
  }),
);
