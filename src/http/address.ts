import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, SocketAddress } from 'node:net';

/** Reverse proxies whose word counts about where a request comes from. */
export type TrustedProxies = BlockList;

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 4 ? 'ipv4' : 'ipv6');

/**
 * Addresses and networks of proxies, as a list.
 *
 * @param networks like `10.0.0.0/8`, `192.0.2.7` or `fd00::/8`
 * @returns what is none of these, in `wrong`
 */
export function trustedProxies(networks: readonly string[]): { proxies: TrustedProxies; wrong: string[] } {
  const proxies = new BlockList();
  const wrong = networks.filter((network) => !addTo(proxies, network));
  return { proxies, wrong };
}

function addTo(proxies: BlockList, network: string): boolean {
  const [, address = '', prefix] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(network) ?? [];
  const bits = { 0: 0, 4: 32, 6: 128 }[isIP(address)]!;
  if (bits === 0 || Number(prefix ?? 0) > bits) return false;
  proxies.addSubnet(address, Number(prefix ?? bits), familyOf(address));
  return true;
}

/**
 * Where a request comes from: its peer, or what the trusted proxies in front of us say. Each proxy adds on the right the
 * address that it was asked from, so the right-most that is no proxy of ours is the last that somebody trusted has seen:
 * whatever stands to its left is what the caller wrote himself.
 *
 * @returns null: the connection has ended already
 */
export function addressOf(request: IncomingMessage, proxies: TrustedProxies): string | null {
  const peer = canonical(request.socket.remoteAddress ?? '');
  if (peer === null || proxies.rules.length === 0) return peer;
  const forwarded = request.headers['x-forwarded-for'];
  const hops = (Array.isArray(forwarded) ? forwarded.join() : (forwarded ?? '')).split(',');
  let address = peer;
  while (proxies.check(address, familyOf(address)) && hops.length > 0) {
    const before = canonical(hops.pop()!.trim());
    // What is no address tells nothing of what stands before it.
    if (before === null) break;
    address = before;
  }
  return address;
}

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/;

/** One text per address: IPv4 in IPv6 as IPv4, IPv6 at its shortest, neither zone nor port. */
export function canonical(text: string): string | null {
  const bare = withoutPort(text).replace(/%.*$/, '');
  if (isIP(bare) === 4) return bare;
  if (isIP(bare) === 0) return null;
  const { address } = new SocketAddress({ address: bare, family: 'ipv6' });
  return MAPPED.exec(address)?.[1] ?? address;
}

/** Some proxies write the port too: `192.0.2.7:1234`, `[2001:db8::1]:1234`. */
const withoutPort = (text: string): string =>
  /^\[(.+)\](?::\d+)?$/.exec(text)?.[1] ?? /^([\d.]+):\d+$/.exec(text)?.[1] ?? text;
