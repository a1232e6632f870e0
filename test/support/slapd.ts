import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { Client } from 'ldapts';
import { dataFolder } from '../../setup/data-folder.ts';
import { fetchSlapd } from '../../setup/slapd.ts';
import { selfSigned } from './certificate.ts';

export const BASE = 'dc=example,dc=com';
export const SEARCHER = { dn: `cn=admin,${BASE}`, password: 'the password of the one who searches' };

export interface TestDirectory {
  /** `ldap://127.0.0.1:port`, and the same through TLS. */
  url: string;
  secureUrl: string;
  /** The name that its certificate has, and the PEM that vouches for it. */
  ca: string;
  port: number;
  /** As its administrator. */
  client: Client;
  /** How many connections were made to it. */
  connections(): number;
  /** Nobody can connect from now on, as if it had gone. */
  cut(): Promise<void>;
  close(): Promise<void>;
}

/**
 * A real slapd with a folder of its own, which listens on a socket in there alone; on free ports of the loopback stand
 * relays to it, one of which speaks TLS. @param people to begin with, by DN
 */
export async function startSlapd(entries: Record<string, Record<string, string | string[]>>): Promise<TestDirectory> {
  const slapd = await fetchSlapd(join(dataFolder, 'cache'));
  const folder = await mkdtemp(join(tmpdir(), 'vg-slapd-'));
  const { certificate, key } = await selfSigned('localhost', '127.0.0.1');
  await mkdir(join(folder, 'database'));
  await writeFile(join(folder, 'certificate.pem'), certificate);
  await writeFile(join(folder, 'key.pem'), key, { mode: 0o600 });
  const configuration = `
${['core', 'cosine', 'inetorgperson'].map((name) => `include ${slapd.schemas}/${name}.schema`).join('\n')}
modulepath ${slapd.modules}
moduleload back_mdb
moduleload memberof
pidfile ${folder}/slapd.pid
argsfile ${folder}/slapd.args
TLSCertificateFile ${folder}/certificate.pem
TLSCertificateKeyFile ${folder}/key.pem
database mdb
suffix "${BASE}"
rootdn "${SEARCHER.dn}"
rootpw "${SEARCHER.password}"
directory ${folder}/database
maxsize 10485760
overlay memberof
`;
  await writeFile(join(folder, 'slapd.conf'), configuration, { mode: 0o600 });
  const path = join(folder, 's');
  const listen = `ldapi://${encodeURIComponent(path)}`;
  // What it says at this level of debugging is that it has begun to listen, and faults.
  const child = spawn(slapd.program, ['-d', 'none', '-f', join(folder, 'slapd.conf'), '-h', listen], {
    env: slapd.environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = once(child, 'close');
  const end = async (): Promise<void> => {
    child.kill('SIGTERM');
    await gone;
    await rm(folder, { recursive: true });
  };
  await saysOf(child, 'slapd starting').catch(async (error: unknown) => {
    await end();
    throw error;
  });

  let count = 0;
  const sockets = new Set<Socket>();
  const relay = (socket: Socket): void => {
    count++;
    const inner = connect(path);
    for (const one of [socket, inner]) {
      sockets.add(one);
      one.on('close', () => sockets.delete(one));
    }
    socket.on('error', () => inner.destroy());
    inner.on('error', () => socket.destroy());
    socket.pipe(inner).pipe(socket);
  };
  const plain = await listening(createServer(relay));
  const secure = await listening(createTlsServer({ cert: certificate, key }, relay));
  const client = new Client({ url: `ldap://127.0.0.1:${portOf(plain)}` });
  await client.bind(SEARCHER.dn, SEARCHER.password);
  for (const [dn, attributes] of Object.entries(entries)) await client.add(dn, attributes);

  const cut = async (): Promise<void> => {
    for (const server of [plain, secure]) server.close();
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: `ldap://127.0.0.1:${portOf(plain)}`,
    secureUrl: `ldaps://localhost:${portOf(secure)}`,
    ca: certificate,
    port: portOf(plain),
    client,
    connections: () => count,
    cut,
    async close() {
      await client.unbind();
      await cut();
      await end();
    },
  };
}

/** Resolves once its stderr holds `text`; rejects with all that it said when it ends before. */
function saysOf(child: ChildProcess, text: string): Promise<void> {
  let said = '';
  return new Promise((resolve, reject) => {
    child.stderr!.setEncoding('utf8').on('data', (more: string) => {
      said += more;
      if (said.includes(text)) resolve();
    });
    child.once('error', reject).once('close', () => reject(new Error(`slapd ended:\n${said}`)));
  });
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

async function listening<S extends Server>(server: S): Promise<S> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
