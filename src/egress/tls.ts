import { isIP } from 'node:net';
import { rootCertificates } from 'node:tls';

/** Without the brackets that a URL's `hostname` has around an address of IPv6. */
export const bareHost = (hostname: string): string => hostname.replace(/^\[(.*)\]$/, '$1');

/**
 * By what the other side is known, whatever address was connected to.
 *
 * @param hostname as a URL has it
 * @param caCertificates PEM: beside the usual ones
 */
export const knownBy = (hostname: string, caCertificates: string | null): { servername?: string; ca?: string[] } => ({
  ...(isIP(bareHost(hostname)) ? {} : { servername: hostname }),
  ...(caCertificates === null ? {} : { ca: [...rootCertificates, caCertificates] }),
});
