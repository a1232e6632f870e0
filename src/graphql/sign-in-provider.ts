import { encodeId } from '../domain/ids.ts';
import type { OidcBegun } from '../ops/oidc-sign-in.ts';
import { type SignInProvider, signInProvidersOf } from '../ops/sign-in-providers.ts';
import { builder } from './builder.ts';
import { ProviderTypeRef } from './identity-provider-settings.ts';
import { errorsField, inputOf } from './mutation.ts';
import { noCookie } from './sign-in.ts';

const SignInProviderRef = builder.objectRef<SignInProvider>('SignInProvider').implement({
  description: 'A way to sign in without a password that is kept here, as a sign-in page shows it to anybody.',
  fields: (t) => ({
    provider: t.string({
      description: 'For `beginOidcSignIn`. What speaks LDAP is asked by `signIn`.',
      resolve: ({ uid }) => encodeId('identity_provider', uid),
    }),
    name: t.exposeString('name', { description: 'What people call it.' }),
    type: t.expose('type', { type: ProviderTypeRef, description: 'What it speaks.' }),
  }),
});

builder.queryField('signInProviders', (t) =>
  t.field({
    type: [SignInProviderRef],
    description:
      'By what people of a domain may sign in. May be asked without a token, by a POST that asks nothing else. A domain ' +
      'that is not there has none.',
    args: {
      domain: t.arg.string({
        required: true,
        description: 'The domain, by names from below the root down: `/sales/emea`; `/` for the root.',
      }),
    },
    extensions: { cost: { own: 10, list: true } },
    resolve: (_root, { domain }, { db }) => signInProvidersOf(db, domain),
  }),
);

builder.mutationField('beginOidcSignIn', (t) =>
  t.field({
    type: builder.objectRef<OidcBegun>('BeginOidcSignInPayload').implement({
      description: 'What became of `beginOidcSignIn`.',
      fields: (fields) => ({
        url: fields.exposeString('url', {
          nullable: true,
          description: 'Where to lead the browser; null when it was refused.',
        }),
        errors: errorsField(fields as never),
      }),
    }),
    description:
      "Begins to sign in on a provider's own page. The answer sets a cookie by which the browser is known when it comes " +
      'back, within ten minutes; it comes back to `/` with its session in a cookie. May be asked without a token, by a ' +
      'POST that asks nothing else.',
    args: {
      input: t.arg({
        type: inputOf(
          'beginOidcSignIn',
          (fields) => ({
            provider: fields.string({ required: true, description: 'As `signInProviders` names it.' }),
          }),
          () => ({}),
        ),
        required: true,
        description: 'By what.',
      }),
    },
    extensions: { cost: { own: 100 } },
    resolve: async (_root, args, context): Promise<OidcBegun> => {
      const { input } = args as { input: Parameters<typeof context.ops.beginOidcSignIn>[1] };
      const begun = await context.ops.beginOidcSignIn(context.actor, input, context);
      if (begun.pending === null) return begun;
      if (!context.cookies) return { ...begun, url: null, errors: [noCookie(null)] };
      context.cookies.keepPending(begun.pending);
      return begun;
    },
  }),
);
