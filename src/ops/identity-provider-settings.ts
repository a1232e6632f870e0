import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import {
  DN_PLACE,
  filterWith,
  isLoopback,
  type LdapSettings,
  NAME_PLACE,
  type OidcSettings,
} from '../domain/identity-provider.ts';
import { hasControlCharacters } from '../domain/name.ts';
import { isFilter } from '../sign-in/ldap-filter.ts';

const text = (max: number) =>
  z
    .string()
    .min(1, 'May not be empty.')
    .max(max, `At most ${max} characters.`)
    .refine((value) => value.isWellFormed() && !hasControlCharacters(value), 'May not hold control characters.');

/** A URL of one of the schemes that says a host and nothing that hides in a URL. */
const urlOf = (schemes: readonly string[], problem: string) =>
  text(1024).superRefine((value, context) => {
    const refuse = (message: string) => context.addIssue({ code: 'custom', message });
    if (!URL.canParse(value)) return refuse('Not a URL.');
    const url = new URL(value);
    if (!schemes.includes(url.protocol) || url.hostname === '') return refuse(problem);
    if (url.username || url.password || url.search || url.hash)
      return refuse('May hold neither a user, a password, a query nor a fragment.');
  });

const issuer = urlOf(['https:', 'http:'], 'Begins with https://.').refine(
  (value) => !URL.canParse(value) || new URL(value).protocol === 'https:' || isLoopback(new URL(value).hostname),
  'Begins with https://: what goes over http can be read and changed on its way.',
);
const ldapUrl = urlOf(['ldaps:', 'ldap:'], 'Begins with ldaps:// or ldap://.').refine(
  (value) => !URL.canParse(value) || ['', '/'].includes(new URL(value).pathname),
  'Ends with the host or its port: the base DN is a field of its own.',
);

const filter = (place: string) =>
  text(1024).superRefine((value, context) => {
    if (!value.includes(place)) context.addIssue({ code: 'custom', message: `Has to hold ${place}.` });
    if (!isFilter(filterWith(value, place, 'x')))
      context.addIssue({ code: 'custom', message: 'Not a filter as RFC 4515 has it, like (uid={name}).' });
  });

const attribute = text(128).regex(/^[A-Za-z][A-Za-z0-9;-]*$/, 'An attribute like entryUUID.');

const caCertificates = z
  .string()
  .max(65_536, 'At most 65536 characters.')
  .refine((value) => {
    const certificates = value.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    return certificates.length > 0 && certificates.every(isCertificate);
  }, 'Holds certificates in PEM form.');

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    // What is none is told to whoever sent it.
    return false;
  }
}

export const oidcSettings = z.object({
  issuer,
  clientId: text(255),
  scopes: z
    .array(text(128).regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'A scope without spaces.'))
    .max(20)
    .nullish(),
  groupsClaim: text(255).nullish(),
  vouchesForSecondFactor: z.boolean().nullish(),
  caCertificates: caCertificates.nullish(),
});

export const ldapSettings = z
  .object({
    url: ldapUrl,
    startTls: z.boolean().nullish(),
    bindDn: text(1024).nullish(),
    baseDn: text(1024),
    userFilter: filter(NAME_PLACE).nullish(),
    subjectAttribute: attribute.nullish(),
    nameAttribute: attribute.nullish(),
    groupsAttribute: attribute.nullish(),
    groupBaseDn: text(1024).nullish(),
    groupFilter: filter(DN_PLACE).nullish(),
    caCertificates: caCertificates.nullish(),
  })
  .refine(
    ({ url, startTls }) =>
      startTls || !URL.canParse(url) || new URL(url).protocol === 'ldaps:' || isLoopback(hostnameOf(url)),
    { message: 'Passwords would go in clear: take ldaps:// or startTls.', path: ['url'] },
  );

/** A URL of a scheme that browsers don't know keeps the case of its host. */
const hostnameOf = (url: string): string => new URL(url).hostname.toLowerCase();

export const oidcOf = (given: z.infer<typeof oidcSettings>): OidcSettings => ({
  issuer: given.issuer,
  clientId: given.clientId,
  scopes: given.scopes ?? ['profile'],
  groupsClaim: given.groupsClaim ?? 'groups',
  vouchesForSecondFactor: given.vouchesForSecondFactor ?? false,
  caCertificates: given.caCertificates ?? null,
});

export const ldapOf = (given: z.infer<typeof ldapSettings>): LdapSettings => ({
  url: given.url,
  startTls: given.startTls ?? false,
  bindDn: given.bindDn ?? null,
  baseDn: given.baseDn,
  userFilter: given.userFilter ?? '(uid={name})',
  subjectAttribute: given.subjectAttribute ?? 'entryUUID',
  nameAttribute: given.nameAttribute ?? 'uid',
  groupsAttribute: given.groupsAttribute ?? 'memberOf',
  groupBaseDn: given.groupBaseDn ?? null,
  groupFilter: given.groupFilter ?? '(&(objectClass=groupOfNames)(member={dn}))',
  caCertificates: given.caCertificates ?? null,
});
