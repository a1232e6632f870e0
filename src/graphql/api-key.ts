import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import type { TokenPayload } from './context.ts';
import { EventList } from './event.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { answer, errorsField, idInput, inputOf, mutation } from './mutation.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import { ApiKeyRef, RoleRef, UserRef } from './refs.ts';

ApiKeyRef.implement({
  description: 'A secret with which programs act as a user. It is told once; nobody can read it again.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'api_key'),
    name: t.exposeString('name', { description: 'What it is for.' }),
    user: t.field({
      type: UserRef,
      nullable: true,
      description: 'Whom it stands for. Null for who may not see it.',
      resolve: (key, _args, context) => loadersOf(context).find('user', key.user_id),
    }),
    role: t.field({
      type: RoleRef,
      nullable: true,
      description: "What it may do at most; null: all that its user may. Never more than its user's role.",
      resolve: (key, _args, context) => (key.role_id === null ? null : loadersOf(context).find('role', key.role_id)),
    }),
    expiresAt: t.expose('expires_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it ends to work by itself; null: never.',
    }),
    lastUsedAt: t.expose('last_used_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was used last, to about a minute. Null: never.',
    }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was created.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was revoked: no list has it since. Null while it is not.',
    }),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: 'api_key',
      condition: conditionsOn('event').is('subject_kind', 'api_key')[0]!,
    }),
  }),
});

const ApiKeyFilterRef = builder.inputType('ApiKeyFilter', {
  description: 'Narrows a list of API keys.',
  fields: (t) => ({
    userId: t.id({ description: 'Only keys of this user.' }),
    name: t.string({ description: 'Only keys of exactly this name.' }),
  }),
});

const where = conditionsOn('api_key');
export const ApiKeyList = list({
  table: 'api_key',
  ref: ApiKeyRef,
  noun: 'ApiKey',
  filter: ApiKeyFilterRef,
  conditions: (filter, actor) => [
    ...where.refersTo('user_id', 'user', filter.userId, 'userId', actor),
    ...where.is('name', filter.name),
  ],
});

builder.queryFields((t) => ({
  apiKey: lookUp(t, 'api_key'),
  apiKeys: rootList(t, ApiKeyList, 'The API keys that the caller may see, without the revoked ones.'),
}));

const CreateApiKeyPayloadRef = builder.objectRef<TokenPayload>('CreateApiKeyPayload').implement({
  description: 'What became of `createApiKey`.',
  fields: (t) => ({
    apiKey: t.field({
      type: ApiKeyRef,
      nullable: true,
      description: 'The key; null when it was refused.',
      resolve: ({ id }, _args, context) => (id === null ? null : loadersOf(context).find('api_key', id)),
    }),
    token: t.exposeString('token', {
      nullable: true,
      description:
        'For `Authorization: Bearer <token>`. It is shown this once and kept nowhere; null when it was refused, or was ' +
        'shown before.',
    }),
    errors: errorsField(t as never),
  }),
});

builder.mutationField('createApiKey', (t) =>
  t.field({
    type: CreateApiKeyPayloadRef,
    description:
      'Makes a key for oneself, or for a user whom the caller may update and who has no more than the caller.',
    args: {
      input: t.arg({
        type: inputOf('createApiKey', (fields) => ({
          userId: fields.id({ required: true, description: 'Whom it stands for.' }),
          name: fields.string({ required: true, description: 'What it is for: 1 to 255 characters.' }),
          roleId: fields.id({
            description:
              "What it may do at most; unless told, all that its user may, and of another's key all that he may now.",
          }),
          expiresInMs: fields.float({
            description: 'How long it works, in milliseconds, from a second to ten years; for ever unless told.',
          }),
        })),
        required: true,
        description: 'For whom, and what it may do.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: (_root, args, context) => {
      forgetRead(context);
      return answer(
        context.ops.createApiKey(context.actor, args.input as Parameters<typeof context.ops.createApiKey>[1], context),
        (errors) => ({ id: null, jobId: null, errors, token: null }),
      );
    },
  }),
);
mutation('revokeApiKey', 'api_key', 'Revokes a key, and ends what it has open.', (t) => idInput(t, 'API key'));
