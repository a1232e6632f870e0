import type { UserErrorData } from '../domain/errors.ts';
import type { Payload } from '../ops/context.ts';
import type { RecoveryPayload, TotpPayload } from '../ops/second-factor.ts';
import { builder } from './builder.ts';
import type { GraphContext, TokenPayload } from './context.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { answer, errorsField, idInput, inputOf, mutation, unkeyedFields } from './mutation.ts';
import { SessionRef } from './refs.ts';

type SignInPayload = TokenPayload & { csrf: string | null };

const nothing = (errors: UserErrorData[]): Payload => ({ id: null, jobId: null, errors });

const SignInPayloadRef = builder.objectRef<SignInPayload>('SignInPayload').implement({
  description: 'What became of `signIn`.',
  fields: (t) => ({
    session: t.field({
      type: SessionRef,
      nullable: true,
      description:
        'The session; null when it was refused. With SECOND_FACTOR_ENROLMENT_REQUIRED it is good for `beginTotp` and ' +
        '`confirmTotp` alone.',
      resolve: ({ id }, _args, context) => (id === null ? null : loadersOf(context).find('session', id)),
    }),
    token: t.exposeString('token', {
      nullable: true,
      description:
        'For `Authorization: Bearer <token>`. It is shown this once; null when it was refused, or is in a cookie.',
    }),
    csrf: t.exposeString('csrf', {
      nullable: true,
      description:
        'What a browser that has the session in a cookie sends along as `x-virtgraph-csrf`; it is in a cookie that ' +
        'scripts can read, too. Null without a cookie.',
    }),
    errors: errorsField(t as never),
  }),
});

builder.mutationField('signIn', (t) =>
  t.field({
    type: SignInPayloadRef,
    description:
      'Opens a session for who has a password, here or in a directory of the account. May be asked without a token, by a ' +
      'POST that asks nothing else. A name that is not there and a wrong password are answered alike.',
    args: {
      input: t.arg({
        type: inputOf(
          'signIn',
          (fields) => ({
            domain: fields.string({
              description: 'The domain that the account stands in, by names from below the root down: `/sales/emea`.',
            }),
            account: fields.string({ required: true, description: 'The name of the account.' }),
            user: fields.string({ required: true, description: 'The name of the user.' }),
            password: fields.string({ required: true, description: 'His password.' }),
            code: fields.string({
              description: 'What his authenticator shows, or a recovery code; asked for with SECOND_FACTOR_REQUIRED.',
            }),
            cookie: fields.boolean({
              description: 'Keep the session in a cookie that no script can read, instead of telling the token.',
            }),
          }),
          () => ({}),
        ),
        required: true,
        description: 'Who, and with what.',
      }),
    },
    extensions: { cost: { own: 100 } },
    resolve: (_root, args, context) => signIn(args.input as Parameters<GraphContext['ops']['signIn']>[1], context),
  }),
);

async function signIn(
  input: Parameters<GraphContext['ops']['signIn']>[1],
  context: GraphContext,
): Promise<SignInPayload> {
  forgetRead(context);
  const { cookies } = context;
  if (input.cookie && !cookies) return { ...nothing([noCookie(['cookie'])]), token: null, csrf: null };
  const payload = await context.ops.signIn(context.actor, input, context);
  const { token } = payload;
  if (token === null) return { ...payload, csrf: null };
  // Whoever was nobody is somebody for the rest of this answer, which has nothing in it but his own session.
  if (context.actor.kind === 'anonymous') context.actor = await context.actorOf(token);
  return input.cookie && cookies ? { ...payload, token: null, csrf: cookies.keep(token) } : { ...payload, csrf: null };
}

export const noCookie = (path: string[] | null): UserErrorData => ({
  code: 'INVALID_INPUT',
  message: 'A cookie is set by an answer to HTTP alone.',
  path,
});

builder.mutationField('signOut', (t) =>
  t.field({
    type: builder.objectRef<Payload>('SignOutPayload').implement({
      description: 'What became of `signOut`.',
      fields: (fields) => ({ errors: errorsField(fields) }),
    }),
    description: 'Ends the session that is used, forgets its cookie, and closes what it has open.',
    args: {
      input: t.arg({
        type: inputOf('signOut', () => ({}), unkeyedFields),
        required: true,
        description: 'Why, if at all.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: async (_root, args, context) => {
      const { input } = args as { input: Parameters<typeof context.ops.signOut>[1] };
      const payload = await answer(context.ops.signOut(context.actor, input, context), nothing);
      if (payload.errors.length === 0) context.cookies?.forget();
      return payload;
    },
  }),
);

mutation(
  'revokeSession',
  'session',
  "Ends a session and what it has open: one's own, or of a user whom the caller rules.",
  (t) => idInput(t, 'session'),
);

mutation(
  'setPassword',
  'user',
  'Gives a user another password and ends all his sessions. For who may update him and has no less than he has.',
  (t) => ({
    userId: t.id({ required: true, description: 'Whose.' }),
    password: t.string({ required: true, description: 'The new one: 12 to 1024 characters.' }),
  }),
  unkeyedFields,
);
mutation(
  'changePassword',
  'user',
  "Changes one's own password, and ends all other sessions.",
  (t) => ({
    currentPassword: t.string({ required: true, description: 'The one until now.' }),
    newPassword: t.string({ required: true, description: 'The new one: 12 to 1024 characters.' }),
  }),
  unkeyedFields,
);

builder.mutationField('beginTotp', (t) =>
  t.field({
    type: builder.objectRef<TotpPayload>('BeginTotpPayload').implement({
      description: 'What became of `beginTotp`.',
      fields: (fields) => ({
        secret: fields.exposeString('secret', {
          nullable: true,
          description: 'For an authenticator, in base32. Told this once; null when it was refused.',
        }),
        uri: fields.exposeString('uri', {
          nullable: true,
          description: 'The same as an `otpauth:` URI, to be shown as a QR code.',
        }),
        errors: errorsField(fields as never),
      }),
    }),
    description: 'Makes a secret for an authenticator. Nothing asks for its codes before `confirmTotp`.',
    args: {
      input: t.arg({
        type: inputOf('beginTotp', () => ({}), unkeyedFields),
        required: true,
        description: 'Why, if at all.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: (_root, args, context) => {
      const { input } = args as { input: Parameters<typeof context.ops.beginTotp>[1] };
      return answer(context.ops.beginTotp(context.actor, input, context), (errors) => ({
        ...nothing(errors),
        secret: null,
        uri: null,
      }));
    },
  }),
);

builder.mutationField('confirmTotp', (t) =>
  t.field({
    type: builder.objectRef<RecoveryPayload>('ConfirmTotpPayload').implement({
      description: 'What became of `confirmTotp`.',
      fields: (fields) => ({
        recoveryCodes: fields.exposeStringList('recoveryCodes', {
          nullable: true,
          description:
            'Each lets its user in once, in place of a code, when the authenticator is lost. Told this once; null when ' +
            'it was refused.',
        }),
        errors: errorsField(fields as never),
      }),
    }),
    description:
      'Shows that the authenticator works: from now on signing in asks for its codes. The session has shown it, too.',
    args: {
      input: t.arg({
        type: inputOf(
          'confirmTotp',
          (fields) => ({ code: fields.string({ required: true, description: 'What the authenticator shows.' }) }),
          unkeyedFields,
        ),
        required: true,
        description: 'A first code.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: (_root, args, context) => {
      const { input } = args as { input: Parameters<typeof context.ops.confirmTotp>[1] };
      return answer(context.ops.confirmTotp(context.actor, input, context), (errors) => ({
        ...nothing(errors),
        recoveryCodes: null,
      }));
    },
  }),
);

mutation(
  'removeTotp',
  'user',
  "Removes an authenticator and its recovery codes: one's own with a code, or that of a user whom the caller rules.",
  (t) => ({
    userId: t.id({ description: 'Whose; unless told, the caller.' }),
    code: t.string({ description: "A code or recovery code, for one's own." }),
  }),
  unkeyedFields,
);
