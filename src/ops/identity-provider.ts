import type { IdentityProvider } from '../db/tables.ts';
import { hold } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { type LdapSettings, type MappedRole, mappingOf, type OidcSettings } from '../domain/identity-provider.ts';
import type { FieldChange } from '../domain/kinds.ts';
import { rightsOfRole } from '../domain/permission.ts';
import type { OpsContext } from './context.ts';
import { ldapOf, oidcOf } from './identity-provider-settings.ts';
import { INPUTS, type Inputs } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';
import { mayGo, mustNotExceed, mustOutrankAllIn, mustReachDomains } from './rights.ts';
import { grantableRole, mustHaveUsers } from './user.ts';

/** What the secret of a provider is sealed for: that of one opens nothing of another. */
export const secretPurpose = (id: number): string => `identity provider ${id}`;

/** In clear, to ask the provider with; null: it has none. */
export const secretOf = (
  { sealer }: OpsContext,
  { id, secret }: Pick<IdentityProvider, 'id' | 'secret'>,
): string | null => secret && sealer.open(secret, secretPurpose(id)).toString();

/** People of an account who are known elsewhere are let in, with the roles of the groups that they are in there. */
export const createIdentityProvider = mutation(
  'createIdentityProvider',
  { verb: 'create', kind: 'identity_provider' },
  INPUTS.createIdentityProvider,
  async (context, input, asker) => {
    const account = await find(context, 'account', input.accountId, ['accountId'], asker.actor);
    mustReachDomains(asker, ['accountId']);
    mustHaveUsers(account);
    const given = settingsOf(input);
    if (!given) throw oneKind('Say either `oidc` or `ldap`: what kind of provider it is.');
    const mapping = await grantableMapping(context, input.roleMapping, asker);
    const id = await context.ids.take();
    const row = {
      id,
      domain_id: account.domain_id,
      account_id: account.id,
      name: input.name,
      type: given.type,
      settings: JSON.stringify(given.settings),
      secret: input.secret ? context.sealer.seal(input.secret, secretPurpose(id)) : null,
      role_mapping: JSON.stringify(mapping),
    };
    const parents = [hold('domain', account.domain_id), hold('account', account.id)];
    return create(context, 'identity_provider', asker, row, [...parents, ...rolesHeld(mapping)]);
  },
);

export const updateIdentityProvider = mutation(
  'updateIdentityProvider',
  { verb: 'update', kind: 'identity_provider' },
  INPUTS.updateIdentityProvider,
  (context, input, asker) =>
    update(context, 'identity_provider', input, asker, async (provider) => {
      await mustOutrankMapping(context, provider, asker);
      const given = settingsOf(input);
      if (given && given.type !== provider.type) throw oneKind(`It is of type ${provider.type}, and stays so.`);
      const mapping = input.roleMapping ? await grantableMapping(context, input.roleMapping, asker) : null;
      const set: Record<string, unknown> = {};
      const changes: FieldChange[] = [];
      if (given) changes.push(...differences(JSON.parse(provider.settings), given.settings));
      if (changes.length > 0) set['settings'] = JSON.stringify(given!.settings);
      const [before, after] = [JSON.stringify(mappingOf(provider)), JSON.stringify(mapping)];
      if (mapping && before !== after) {
        set['role_mapping'] = after;
        changes.push({ field: 'roleMapping', before, after });
      }
      if (input.secret != null) {
        set['secret'] = input.secret === '' ? null : context.sealer.seal(input.secret, secretPurpose(provider.id));
        changes.push({ field: 'secret', before: provider.secret && '***', after: input.secret && '***' });
      }
      return { set, changes, also: { writes: rolesHeld(mapping ?? []), changes: [] } };
    }),
);

export const identityProviderSwitches = switches('identity_provider', 'IdentityProvider', {
  async guard(context, provider, asker, wanted) {
    await mustOutrankMapping(context, provider, asker);
    mayGo('identity_provider', provider.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { provider: provider.id }, asker);
  },
});

type Settings = { type: 'OIDC'; settings: OidcSettings } | { type: 'LDAP'; settings: LdapSettings };

/** @throws VirtgraphError INVALID_INPUT where both are given */
function settingsOf({ oidc, ldap }: Pick<Inputs['updateIdentityProvider'], 'oidc' | 'ldap'>): Settings | null {
  if (oidc && ldap) throw oneKind('Say either `oidc` or `ldap`, not both.');
  if (oidc) return { type: 'OIDC', settings: oidcOf(oidc) };
  return ldap ? { type: 'LDAP', settings: ldapOf(ldap) } : null;
}

const oneKind = (message: string): VirtgraphError =>
  new VirtgraphError({ code: 'INVALID_INPUT', message, path: ['oidc'] });

/** Whoever is mapped has the role, so it is granted here. @throws VirtgraphError NOT_FOUND, FORBIDDEN */
async function grantableMapping(
  context: OpsContext,
  given: Inputs['createIdentityProvider']['roleMapping'],
  asker: Asker,
): Promise<MappedRole[]> {
  const roles = await Promise.all(
    given.map(({ roleId }, at) => grantableRole(context, roleId, asker, ['roleMapping', String(at), 'roleId'])),
  );
  return given.map(({ group }, at) => ({ group, roleId: roles[at]!.id }));
}

const rolesHeld = (mapping: readonly MappedRole[]) =>
  [...new Set(mapping.map(({ roleId }) => roleId))].map((id) => hold('role', id));

/**
 * Whoever leads a provider elsewhere can be anyone whom it names: so nobody changes one that gives more than he has.
 *
 * @throws VirtgraphError FORBIDDEN
 */
async function mustOutrankMapping(context: OpsContext, provider: IdentityProvider, asker: Asker): Promise<void> {
  mustReachDomains(asker, ['id']);
  const ids = mappingOf(provider).map(({ roleId }) => roleId);
  const roles = await context.db
    .selectFrom('role')
    .select(['id', 'reach', 'rules'])
    .where('id', 'in', ids)
    .where('deleted_at', 'is', null)
    .execute();
  for (const role of roles)
    mustNotExceed(asker, rightsOfRole(role), `Who comes by the identity provider ${provider.name}`, ['id']);
}

/** Setting by setting, as a person reads it. */
function differences(before: Record<string, unknown>, after: object): FieldChange[] {
  const shown = (value: unknown): string | null =>
    value === null || value === undefined ? null : typeof value === 'string' ? value : JSON.stringify(value);
  return Object.entries(after)
    .filter(([name, value]) => JSON.stringify(before[name] ?? null) !== JSON.stringify(value))
    .map(([name, value]) => ({ field: name, before: shown(before[name]), after: shown(value) }));
}
