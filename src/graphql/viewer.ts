import { type Actor, actorName } from '../domain/authorize.ts';
import { builder } from './builder.ts';

type Known = Exclude<Actor, { kind: 'anonymous' }>;

const ViewerKindRef = builder.enumType('ViewerKind', {
  description: 'What a caller is.',
  values: {
    ROOT_ADMIN: { description: 'May do everything.', value: 'root-admin' },
    USER: { description: 'Someone of an account.', value: 'user' },
    SYSTEM: { description: 'Virtgraph itself; it never comes from outside.', value: 'system' },
  } as const,
});

const ViewerRef = builder.objectRef<Known>('Viewer').implement({
  description: 'Who is asking.',
  fields: (t) => ({
    name: t.string({ description: 'As it stands in jobs and events.', resolve: actorName }),
    kind: t.expose('kind', { type: ViewerKindRef, description: 'What it is.' }),
  }),
});

builder.queryField('viewer', (t) =>
  t.field({
    type: ViewerRef,
    nullable: true,
    description: 'Who is asking; null for someone who has not said.',
    resolve: (_root, _args, { actor }) => (actor.kind === 'anonymous' ? null : actor),
  }),
);
