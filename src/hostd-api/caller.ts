import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { VirtgraphError } from '../domain/errors.ts';
import type { HostConnections } from '../hosts/connections.ts';
import type { HostdContext, HostdParts } from './context.ts';

/** The WebSocket of a connection, as far as it is needed here. */
interface HostSocket {
  /** Closes it, with words for the other side. */
  end(why: string): void;
  onClose(listener: () => void): void;
  address: string | null;
}

/** What OpenSSL calls a certificate that is over. */
const EXPIRED = 'CERT_HAS_EXPIRED';

/**
 * Who opened a connection: whoever shows no certificate may only register, and whoever shows one that is not accepted is
 * nobody at all.
 *
 * @throws VirtgraphError UNAUTHENTICATED
 */
export async function hostdContext(
  parts: HostdParts,
  connections: HostConnections,
  { socket }: IncomingMessage,
  link: HostSocket,
): Promise<HostdContext> {
  const { address } = link;
  if (!(socket instanceof TLSSocket)) throw new Error('hosts are served by TLS alone');
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return { ...parts, host: null, address };
  if (!socket.authorized)
    throw new VirtgraphError({
      code: 'UNAUTHENTICATED',
      message:
        String(socket.authorizationError) === EXPIRED
          ? 'The certificate of this host has expired.'
          : 'The certificate is none of this control plane.',
    });
  const fingerprint = Buffer.from(certificate.fingerprint256.replaceAll(':', ''), 'hex');
  const host = await parts.identities.authenticate(fingerprint);
  link.onClose(connections.opened(host, (why) => link.end(why)));
  // Once it is listed, a revocation ends it; one that came in between was told to nobody.
  await parts.identities.mustBeAccepted(host);
  return { ...parts, host, address };
}
