import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import type { Limits } from './limits.ts';
import { listen } from './listen.ts';

/** In PEM. */
export interface Certificate {
  /** With those of its issuers behind it. */
  cert: string;
  key: string;
}

export interface SecureOptions {
  host: string;
  /** 0: any that is free. */
  port: number;
  certificate: Certificate;
  /** Whose certificates clients may show, in PEM. Whoever shows none, or another's, is let in: the program decides. */
  authority: string;
}

export interface SecureListener {
  /** `https://host:port` */
  url: string;
  port: number;
  /** For connections from now on. */
  useCertificate(certificate: Certificate): void;
  /** Takes no more. Resolves when all connections are gone; those that are no WebSockets are cut after so long. */
  close(drainMs: number): Promise<void>;
}

/** TLS, for WebSockets of programs alone: any other request is answered 404. */
export async function listenSecurely(
  { host, port, certificate, authority }: SecureOptions,
  limits: Pick<Limits, 'strangers' | 'strangerMs'>,
  log: Logger,
  upgrade: (request: IncomingMessage, transport: Duplex, head: Buffer) => void,
): Promise<SecureListener> {
  const context = ({ cert, key }: Certificate) => ({ cert, key, ca: authority, minVersion: 'TLSv1.3' as const });
  const server = createServer({
    ...context(certificate),
    requestCert: true,
    // Who has no certificate yet may ask for one; who shows another's is told so in the protocol that both speak.
    rejectUnauthorized: false,
    handshakeTimeout: 10_000,
    headersTimeout: 10_000,
    requestTimeout: 30_000,
  });
  server.on('secureConnection', boundStrangers(limits, log));
  server.on('request', (_request, response) => response.writeHead(404, { connection: 'close' }).end());
  server.on('upgrade', upgrade);
  const where = await listen(server, host, port);
  return {
    url: `https://${where.authority}`,
    port: where.port,
    useCertificate: (fresh) => server.setSecureContext(context(fresh)),
    close: async (drainMs) => {
      const timer = setTimeout(() => server.closeAllConnections(), drainMs);
      await new Promise<void>((resolve) => server.close(() => resolve()));
      clearTimeout(timer);
    },
  };
}

/**
 * Whoever has shown no certificate that is ours gets one of a few places, for a short while: nobody fills the port with
 * connections on which he asks for nothing, and hosts that are known have none of these places.
 */
function boundStrangers(
  { strangers, strangerMs }: Pick<Limits, 'strangers' | 'strangerMs'>,
  log: Logger,
): (socket: TLSSocket) => void {
  let open = 0;
  return (socket) => {
    if (socket.authorized) return;
    if (open >= strangers) {
      log.info({ address: socket.remoteAddress }, 'cut: too many connections to the port of hosts show no certificate');
      socket.destroy();
      return;
    }
    open++;
    const timer = setTimeout(() => socket.destroy(), strangerMs);
    socket.once('close', () => {
      open--;
      clearTimeout(timer);
    });
  };
}
