import { hasControlCharacters, identityNameProblem, NAME_MAX } from './name.ts';

export const PROVIDER_TYPES = ['OIDC', 'LDAP'] as const;
export type ProviderType = (typeof PROVIDER_TYPES)[number];

/** @see OpenID Connect Core 1.0, authorization code flow */
export interface OidcSettings {
  /** As the provider says it in its tokens. */
  issuer: string;
  clientId: string;
  /** Asked for beside `openid`. */
  scopes: string[];
  /** The claim that lists the groups somebody is in. */
  groupsClaim: string;
  /** That it asks everybody for a second factor; otherwise its tokens say of whom (`amr`). */
  vouchesForSecondFactor: boolean;
  /** PEM: who vouches for the provider's certificate, beside the usual ones. */
  caCertificates: string | null;
}

export interface LdapSettings {
  /** `ldaps://host[:port]`, or `ldap://host[:port]` with `startTls`. */
  url: string;
  startTls: boolean;
  /** Who searches; null: anybody may. */
  bindDn: string | null;
  baseDn: string;
  /** RFC 4515, with `{name}` where the name stands. */
  userFilter: string;
  /** What stays the same when somebody is renamed: `entryUUID`, or `objectGUID` of Active Directory. */
  subjectAttribute: string;
  nameAttribute: string;
  /** Lists somebody's groups by DN. */
  groupsAttribute: string;
  /** Where groups are looked for instead; null: `groupsAttribute` of the person has them. */
  groupBaseDn: string | null;
  /** RFC 4515, with `{dn}` where the person's DN stands. */
  groupFilter: string;
  caCertificates: string | null;
}

/** Whoever is in the group, as the provider names it, gets the role. */
export interface MappedRole {
  group: string;
  roleId: number;
}

export const mappingOf = ({ role_mapping }: { role_mapping: string }): MappedRole[] =>
  JSON.parse(role_mapping) as MappedRole[];

/** Somebody, as a provider knows him. */
export interface ExternalIdentity {
  /** Never another's; at most 255 characters. */
  subject: string;
  /** What he calls himself there. */
  name: string;
  groups: string[];
  /** That a second factor was shown there. */
  secondFactor: boolean;
}

export const SUBJECT_MAX = 255;

/** The database takes no notice of spaces behind a text: with them two would be one. */
export const isSubject = (text: unknown): text is string =>
  typeof text === 'string' && text !== '' && text.length <= SUBJECT_MAX && !text.endsWith(' ');

/** Of the mapping: everybody whom the provider knows. */
export const ANY_GROUP = '*';

/** The role of the first group that fits; null: none does, and he is not let in. */
export function roleFor(type: ProviderType, mapping: readonly MappedRole[], groups: readonly string[]): number | null {
  const same = type === 'LDAP' ? sameDn : (group: string) => group;
  const of = new Set(groups.map(same));
  return mapping.find(({ group }) => group === ANY_GROUP || of.has(same(group)))?.roleId ?? null;
}

/** Directories write the DNs of groups in either case, with or without a space after a comma; an escaped comma is none. */
const sameDn = (dn: string): string => dn.toLowerCase().replaceAll(/(?<!\\),\s+/g, ',');

/**
 * A name like the one that somebody has at his provider, in the form that names have here. What he chose there so that it
 * looks like another's is none.
 */
export function nameFrom(wanted: string): string {
  const visible = wanted
    .toWellFormed()
    .normalize('NFKC')
    .replaceAll(/[\p{Default_Ignorable_Code_Point}\p{Cf}]/gu, '');
  const plain = [...visible.replaceAll('/', '-')].map((character) =>
    hasControlCharacters(character) ? ' ' : character,
  );
  // Room is left for what tells apart two of the same name.
  const name = plain
    .join('')
    .trim()
    .slice(0, NAME_MAX - 20)
    .toWellFormed()
    .trim();
  return identityNameProblem(name) === null ? name : 'user';
}

/** `anna`, `anna-2`, `anna-3`, … */
export const numbered = (name: string, taken: ReadonlySet<string>): string => {
  if (!taken.has(name)) return name;
  let n = 2;
  while (taken.has(`${name}-${n}`)) n++;
  return `${name}-${n}`;
};

/** Where nobody listens in, so that what is not encrypted is no danger. As a URL's `hostname` has it. */
export const isLoopback = (hostname: string): boolean => /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(hostname);

/** Where the name, or a DN, stands in a filter. */
export const NAME_PLACE = '{name}';
export const DN_PLACE = '{dn}';

/** A filter with a value in it that can be nothing but a value. @see RFC 4515, 3 */
export const filterWith = (template: string, place: string, value: string): string =>
  template.replaceAll(place, () => escaped(value));

// biome-ignore lint/suspicious/noControlCharactersInRegex: NUL ends a text to some directories
const escaped = (value: string): string => value.replaceAll(/[\\*()\u0000]/g, (c) => `\\${hex(c)}`);
const hex = (character: string): string => character.charCodeAt(0).toString(16).padStart(2, '0');
