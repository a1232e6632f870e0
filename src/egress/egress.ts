import { lookup } from 'node:dns/promises';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { bareHost } from './tls.ts';

/**
 * Where Virtgraph may go by itself when somebody tells it to: anywhere in public, and nowhere inside, except where the
 * operator says so. Otherwise whoever names a URL could have us ask what only we can reach.
 *
 * @see IANA special-purpose address registries
 */
const INSIDE_V4 = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.168.0.0/16', '198.18.0.0/15', '224.0.0.0/4', '240.0.0.0/4'],
];
/** With what leads to an IPv4 address by another name: translated, 6to4 and Teredo. */
const INSIDE_V6 = [
  ...['::/127', 'fc00::/7', 'fe80::/10', 'fec0::/10', 'ff00::/8'],
  ...['::/96', '64:ff9b::/96', '64:ff9b:1::/48', '2002::/16', '2001::/32'],
];

const inside = new BlockList();
for (const range of [...INSIDE_V4, ...INSIDE_V6]) add(inside, range);

function add(list: BlockList, range: string): void {
  const [address, bits] = range.split('/') as [string, string];
  list.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
}

/** An address may not be reached, or a name has none that may be. */
export class EgressRefused extends Error {}

interface Allowed {
  list: BlockList;
  /** Null: any. */
  port: number | null;
}

/** All addresses of a name. */
export type Resolve = (name: string) => Promise<string[]>;

const bySystem: Resolve = async (name) => (await lookup(name, { all: true })).map(({ address }) => address);

export class Egress {
  readonly #allowed: readonly Allowed[];
  readonly #resolve: Resolve;

  /** @param allow as `parseAllowed` takes it */
  constructor(allow = '', resolve: Resolve = bySystem) {
    this.#allowed = parseAllowed(allow);
    this.#resolve = resolve;
  }

  mayReach(address: string, port: number): boolean {
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    if (!inside.check(address, family)) return true;
    return this.#allowed.some((one) => (one.port === null || one.port === port) && one.list.check(address, family));
  }

  /**
   * The address to connect to; whoever does so names it, and never the host again: that may have another by then.
   *
   * @param host as a URL's `hostname` has it
   * @throws EgressRefused; the resolver's own error for a name that is none
   */
  async addressOf(host: string, port: number): Promise<string> {
    const bare = bareHost(host);
    const addresses = isIP(bare) ? [bare] : await this.#resolve(bare);
    const reachable = addresses.find((address) => this.mayReach(address, port));
    if (reachable !== undefined) return reachable;
    throw new EgressRefused(
      `${host}:${port} is inside: ${addresses.join(', ')}. An operator can allow it in VIRTGRAPH_EGRESS_ALLOW.`,
    );
  }
}

/** What is wrong with a list of what may be reached inside; null: nothing. */
export function allowedProblem(text: string): string | null {
  try {
    parseAllowed(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** `10.1.0.0/16:636, 192.168.7.9, [fd00::/8]:443`: addresses or ranges, each with one port or for any. */
function parseAllowed(text: string): Allowed[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const [, bracketed, plain, port] =
        /^(?:\[([^\]]+)\]|([^:\]]+|[0-9a-f:]*::?[0-9a-f:]*(?:\/\d+)?))(?::(\d+))?$/i.exec(part) ?? [];
      const [address, bits, ...rest] = (bracketed ?? plain ?? '').split('/');
      const family = isIP(address!);
      const most = family === 6 ? 128 : 32;
      if (family === 0 || rest.length > 0 || !within(bits, most) || !within(port, 65_535))
        throw new Error(`\`${part}\` is neither an address nor a range, like 10.1.0.0/16:636 or [fd00::/8]:443.`);
      const list = new BlockList();
      add(list, `${address}/${bits ?? most}`);
      return { list, port: port === undefined ? null : Number(port) };
    });
}

const within = (text: string | undefined, most: number): boolean =>
  text === undefined || (/^\d{1,5}$/.test(text) && Number(text) <= most);
