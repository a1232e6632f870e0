import { setTimeout as pause } from 'node:timers/promises';
import type { RawBuilder } from 'kysely';
import type { IdentityProvider } from '../db/tables.ts';
import type { ExternalIdentity, LdapSettings } from '../domain/identity-provider.ts';
import type { OpsContext, Via } from './context.ts';
import { admitExternal } from './external-user.ts';
import { secretOf } from './identity-provider.ts';
import { providerFault } from './provider-refusal.ts';

/**
 * No refusal comes sooner: a directory compares with a hash where there is somebody, and with none where there is not,
 * which whoever counts milliseconds would hear.
 */
const REFUSAL_MS = 300;

/**
 * The user of who has this name and password in a directory of the account; null: nobody. Each directory is asked, so
 * one that is away keeps nobody out who is in another.
 *
 * @param domainId of the domain, as an expression
 * @throws VirtgraphError UNAVAILABLE where nobody was found and not all could be asked, FORBIDDEN without a role
 */
export async function signInByDirectory(
  context: OpsContext,
  domainId: RawBuilder<number>,
  { account, user, password }: { account: string; user: string; password: string },
  via: Via,
): Promise<number | null> {
  const began = performance.now();
  const directories = await directoriesOf(context, domainId, account);
  if (directories.length === 0) return null;
  const found = await firstOf(context, directories, user, password);
  if (found) return (await admitExternal(context, found.provider, found.identity, via)).userId;
  await pause(Math.max(0, REFUSAL_MS - (performance.now() - began)));
  return null;
}

async function firstOf(
  context: OpsContext,
  directories: IdentityProvider[],
  name: string,
  password: string,
): Promise<{ provider: IdentityProvider; identity: ExternalIdentity } | null> {
  // Most control planes never ask a directory: what speaks with one takes memory from then on.
  const { signInByLdap } = await import('../sign-in/ldap.ts');
  let fault: unknown = null;
  for (const provider of directories) {
    try {
      const identity = await signInByLdap(directoryOf(context, provider), name, password);
      if (identity) return { provider, identity };
    } catch (error) {
      fault ??= providerFault(context, error, provider);
    }
  }
  if (fault) throw fault;
  return null;
}

const directoryOf = (context: OpsContext, provider: IdentityProvider) => ({
  settings: JSON.parse(provider.settings) as LdapSettings,
  secret: secretOf(context, provider),
  egress: context.egress,
});

const directoriesOf = (
  { db }: OpsContext,
  domainId: RawBuilder<number>,
  account: string,
): Promise<IdentityProvider[]> =>
  db
    .selectFrom('identity_provider')
    .innerJoin('account', 'account.id', 'identity_provider.account_id')
    .selectAll('identity_provider')
    .where('identity_provider.domain_id', '=', domainId)
    .where('identity_provider.type', '=', 'LDAP')
    .where('identity_provider.wanted_state', '=', 'ENABLED')
    .where('identity_provider.deleted_at', 'is', null)
    .where('account.name', '=', account)
    .where('account.wanted_state', '=', 'ENABLED')
    .where('account.deleted_at', 'is', null)
    .orderBy('identity_provider.id')
    .execute();
