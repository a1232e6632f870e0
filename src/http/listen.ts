import type { AddressInfo, Server } from 'node:net';

/** Resolves once it listens, with where, as a URL says it. Rejects with why it can't. */
export function listen(server: Server, host: string, port: number): Promise<{ authority: string; port: number }> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      const bound = (server.address() as AddressInfo).port;
      resolve({ authority: `${host.includes(':') ? `[${host}]` : host}:${bound}`, port: bound });
    });
  });
}
