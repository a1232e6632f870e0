import { createHash, type X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { CONTROL_PLANE_NAME, ConnectionLost, toLost } from './connection.ts';
import { WrongControlPlane } from './given-up.ts';

const CHAIN_AT_MOST = 4;

/** What the hosts of one process have found out about control planes: asked for once, however many they are. */
export class Authorities {
  readonly #found = new Map<string, Promise<string>>();

  /** As `fetchAuthority`. */
  fetch(url: string, fingerprint: Buffer, options: FetchOptions): Promise<string> {
    const key = `${url} ${fingerprint.toString('hex')}`;
    const known = this.#found.get(key);
    if (known) return known;
    const fetched = fetchAuthority(url, fingerprint, options);
    this.#found.set(key, fetched);
    fetched.catch(() => this.#found.delete(key));
    return fetched;
  }
}

interface FetchOptions {
  timeoutMs: number;
  signal: AbortSignal;
}

/**
 * The certificate, in PEM, of the authority that whoever answers at `url` shows, if it is the one with this fingerprint.
 * Nothing is said on this connection: what follows is another one, which is checked by that certificate in the usual way.
 *
 * @throws WrongControlPlane for another authority; ConnectionLost
 */
async function fetchAuthority(url: string, fingerprint: Buffer, { timeoutMs, signal }: FetchOptions): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect({
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 443),
    servername: CONTROL_PLANE_NAME,
    // It is not known yet by what to check; the fingerprint is the check.
    rejectUnauthorized: false,
  });
  try {
    await shakenHands(socket, timeoutMs, signal);
    const authority = chainOf(socket).find((one) => sha256(one.raw).equals(fingerprint));
    if (authority) return authority.toString();
    throw new WrongControlPlane(
      `${url} is not the control plane that made the join token: its authority has another fingerprint. Nothing was told to it.`,
    );
  } finally {
    socket.destroy();
  }
}

function shakenHands(socket: TLSSocket, timeoutMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(new ConnectionLost('dropped by this host'));
    signal.addEventListener('abort', abort, { once: true });
    socket.once('secureConnect', resolve);
    socket.on('error', (error) => reject(toLost(error)));
    socket.once('close', () => {
      signal.removeEventListener('abort', abort);
      reject(new ConnectionLost('closed while shaking hands'));
    });
    socket.setTimeout(timeoutMs, () => reject(new ConnectionLost(`no handshake in ${timeoutMs} ms`)));
    if (signal.aborted) abort();
  });
}

function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  while (next && chain.length < CHAIN_AT_MOST) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest();
