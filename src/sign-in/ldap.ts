import { randomUUID } from 'node:crypto';
import { isIP, connect as netConnect, type Socket } from 'node:net';
import { type ConnectionOptions as TlsOptions, connect as tlsConnect } from 'node:tls';
import {
  BusyError,
  Client,
  ConfidentialityRequiredError,
  type Entry,
  ResultCodeError,
  StrongAuthRequiredError,
  UnavailableError,
} from 'ldapts';
import {
  DN_PLACE,
  type ExternalIdentity,
  filterWith,
  isSubject,
  type LdapSettings,
  NAME_PLACE,
} from '../domain/identity-provider.ts';
import { hasControlCharacters, NAME_MAX } from '../domain/name.ts';
import { type Egress, EgressRefused } from '../egress/egress.ts';
import { knownBy } from '../egress/tls.ts';
import { ProviderAway, ProviderRefused } from './refused.ts';

/** What a directory is asked with. */
export interface Directory {
  settings: LdapSettings;
  /** The password of the one who searches. */
  secret: string | null;
  egress: Egress;
}

const OPERATION_MS = 5_000;
/** For all that one sign-in asks. */
const TOTAL_MS = 10_000;
const ANSWER_BYTES = 4 * 2 ** 20;
const GROUPS_MAX = 1_000;
const PASSWORD_MAX = 1_024;
/** Not text: they are told as hexadecimal digits. */
const BINARY = ['objectguid', 'objectsid'];

/**
 * Who has this name and password in a directory; null: nobody, without a word whether it is the name or the password.
 * Both are asked in the same steps, so that neither is told by the time that it takes.
 *
 * @throws ProviderAway, ProviderRefused when the directory can not be asked, whoever it is about
 */
export async function signInByLdap(of: Directory, name: string, password: string): Promise<ExternalIdentity | null> {
  // A bind without a password succeeds, as nobody: it must never be sent. @see RFC 4513, 5.1.2
  if (password === '' || password.length > PASSWORD_MAX || password.includes('\0')) return null;
  if (name === '' || name.length > NAME_MAX || hasControlCharacters(name)) return null;
  return asked(of, async (connect) => {
    const searcher = await connectedAsSearcher(of, connect);
    const entry = await personOf(of, searcher, name);
    const person = await connect();
    // Somebody who is not there is asked for too.
    const dn = entry?.dn ?? `cn=${randomUUID()},${of.settings.baseDn}`;
    if (!(await bindsAs(person, dn, password)) || !entry) return null;
    return identityOf(of, searcher, entry, name);
  });
}

type Connect = () => Promise<Client>;

async function connectedAsSearcher({ settings, secret }: Directory, connect: Connect): Promise<Client> {
  const client = await connect();
  if (settings.bindDn === null) return client;
  if (!secret) throw new ProviderRefused('The one who searches has no password: give the provider its secret.');
  await client.bind(settings.bindDn, secret).catch((error: unknown) => {
    if (error instanceof ResultCodeError)
      throw new ProviderRefused(`The directory does not let ${settings.bindDn} in.`, { cause: error });
    throw error;
  });
  return client;
}

/** The one person of this name; null: there is none, or more than one, who can't be told apart. */
async function personOf({ settings }: Directory, client: Client, name: string): Promise<Entry | null> {
  const { subjectAttribute, nameAttribute, groupsAttribute } = settings;
  const { searchEntries } = await client.search(settings.baseDn, {
    scope: 'sub',
    derefAliases: 'never',
    filter: filterWith(settings.userFilter, NAME_PLACE, name),
    sizeLimit: 2,
    timeLimit: OPERATION_MS / 1000,
    attributes: [subjectAttribute, nameAttribute, groupsAttribute],
    explicitBufferAttributes: BINARY.includes(subjectAttribute.toLowerCase()) ? [subjectAttribute] : [],
  });
  const [entry] = searchEntries;
  return searchEntries.length === 1 && entry!.dn !== '' ? entry! : null;
}

/** @throws ResultCodeError where it would have refused whoever it was */
async function bindsAs(client: Client, dn: string, password: string): Promise<boolean> {
  try {
    await client.bind(dn, password);
    return true;
  } catch (error) {
    if (!(error instanceof ResultCodeError) || REFUSES_ALL.some((kind) => error instanceof kind)) throw error;
    // Wrong, locked, expired, without a password: the directory does not let this one in.
    return false;
  }
}
const REFUSES_ALL = [BusyError, UnavailableError, ConfidentialityRequiredError, StrongAuthRequiredError];

async function identityOf(of: Directory, client: Client, entry: Entry, typed: string): Promise<ExternalIdentity> {
  const { subjectAttribute, nameAttribute } = of.settings;
  const subjects = valuesOf(entry, subjectAttribute);
  const subject = subjects[0];
  if (subjects.length !== 1 || !isSubject(subject))
    throw new ProviderRefused(`${entry.dn} has no ${subjectAttribute} that tells him from all others.`);
  const name = valuesOf(entry, nameAttribute)[0] ?? typed;
  return { subject, name, groups: await groupsOf(of, client, entry), secondFactor: false };
}

async function groupsOf({ settings }: Directory, client: Client, entry: Entry): Promise<string[]> {
  if (settings.groupBaseDn === null) return valuesOf(entry, settings.groupsAttribute);
  const { searchEntries } = await client.search(settings.groupBaseDn, {
    scope: 'sub',
    derefAliases: 'never',
    filter: filterWith(settings.groupFilter, DN_PLACE, entry.dn),
    sizeLimit: GROUPS_MAX,
    timeLimit: OPERATION_MS / 1000,
    attributes: ['1.1'],
  });
  return searchEntries.map(({ dn }) => dn);
}

/** Directories write the names of attributes as they like. */
function valuesOf(entry: Entry, attribute: string): string[] {
  const found = Object.entries(entry).find(([name]) => name.toLowerCase() === attribute.toLowerCase())?.[1] ?? [];
  const values: (string | Buffer)[] = Array.isArray(found) ? found : [found];
  return values
    .map((value) => (Buffer.isBuffer(value) ? value.toString('hex') : value))
    .filter((value) => value !== '');
}

/** Runs what is asked within the time that it may take, and lets go of every connection. */
async function asked<T>(of: Directory, work: (connect: Connect) => Promise<T>): Promise<T> {
  const sockets: Socket[] = [];
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${TOTAL_MS / 1000} s`)), TOTAL_MS);
  try {
    return await Promise.race([work(() => connectTo(of, sockets)), late.promise]);
  } catch (error) {
    throw told(error);
  } finally {
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
  }
}

async function connectTo({ settings, egress }: Directory, sockets: Socket[]): Promise<Client> {
  const url = new URL(settings.url);
  const secure = url.protocol === 'ldaps:';
  const port = Number(url.port) || (secure ? 636 : 389);
  const address = await egress.addressOf(url.hostname, port);
  const tls: TlsOptions = { host: address, port, ...knownBy(url.hostname, settings.caCertificates) };
  const kept = <S extends Socket>(socket: S): S => {
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > ANSWER_BYTES) socket.destroy(new Error(`its answers are larger than ${ANSWER_BYTES} bytes`));
    });
    sockets.push(socket);
    return socket;
  };
  let opened = false;
  // The client would connect again by itself after a loss: without encryption, and as nobody.
  const once = <S extends Socket>(open: () => S): S => {
    if (opened) throw new Error('the connection was lost');
    opened = true;
    return kept(open());
  };
  const client = new Client({
    url: `${url.protocol}//${isIP(address) === 6 ? `[${address}]` : address}:${port}`,
    timeout: OPERATION_MS,
    connectTimeout: OPERATION_MS,
    strictDN: false,
    ...(secure ? { tlsOptions: tls } : {}),
    createConnection: (() => once(() => netConnect({ host: address, port }))) as typeof netConnect,
    createSecureConnection: ((...given: unknown[]) => {
      if (secure) return once(() => tlsConnect(tls));
      return kept(tlsConnect(given[0] as TlsOptions));
    }) as typeof tlsConnect,
  });
  if (settings.startTls && !secure) await client.startTLS({ ...tls });
  return client;
}

function told(error: unknown): Error {
  if (error instanceof ProviderRefused) return error;
  const { message } = error as Error;
  if (error instanceof EgressRefused) return new ProviderRefused(message, { cause: error });
  if (error instanceof ResultCodeError && !(error instanceof BusyError) && !(error instanceof UnavailableError))
    return new ProviderRefused(`The directory refuses what it is asked: ${message}`, { cause: error });
  return new ProviderAway(`The directory does not answer: ${message}`, { cause: error });
}
