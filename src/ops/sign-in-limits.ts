import { Buckets } from '../domain/buckets.ts';
import { VirtgraphError } from '../domain/errors.ts';

const A_MINUTE = { name: 10, address: 50 };
/** Wrong codes of one user in an hour: whoever guesses knows the password already. */
const CODES_AN_HOUR = 10;
const FAMILIAR_KEPT = 10_000;

/**
 * How often somebody may fail to sign in: for each name, whether or not there is such a user, and for each address.
 * Nothing locks anybody out: what was taken comes back with time. An address from which the name has signed in before has
 * an allowance of its own, so that whoever guesses at a name does not keep its owner out.
 *
 * Kept in memory: each control plane counts for itself.
 */
export class SignInLimits {
  readonly #names: Buckets;
  readonly #familiar: Buckets;
  readonly #addresses: Buckets;
  readonly #codes: Buckets;
  /** `<name> <address>` that has signed in, the one that is known for the longest first. */
  readonly #known = new Set<string>();

  constructor(now: () => number = () => performance.now()) {
    const bucket = (limit: number, perMinute = limit) => new Buckets({ limit, perMinute, now });
    this.#names = bucket(A_MINUTE.name);
    this.#familiar = bucket(A_MINUTE.name);
    this.#addresses = bucket(A_MINUTE.address);
    this.#codes = bucket(CODES_AN_HOUR, CODES_AN_HOUR / 60);
  }

  /**
   * Counts a try before it is looked at: many at once are not more than many after one another.
   *
   * @returns a function that takes it back, for who has signed in
   * @throws VirtgraphError RATE_LIMITED
   */
  begin(name: string, address: string | null): () => void {
    const network = networkOf(address);
    const pair = `${name} ${network}`;
    const [names, key] = this.#known.has(pair) ? [this.#familiar, pair] : [this.#names, name];
    mustBeTaken(this.#addresses.take(network));
    try {
      mustBeTaken(names.take(key));
    } catch (error) {
      this.#addresses.giveBack(network);
      throw error;
    }
    return () => {
      this.#addresses.giveBack(network);
      names.giveBack(key);
      this.#remember(pair);
    };
  }

  /** A try that names nobody yet, of an address. @throws VirtgraphError RATE_LIMITED */
  beginAt(address: string | null): void {
    mustBeTaken(this.#addresses.take(networkOf(address)));
  }

  /** The same for a code of the second factor. @throws VirtgraphError RATE_LIMITED */
  beginCode(userId: number): () => void {
    const key = String(userId);
    mustBeTaken(this.#codes.take(key));
    return () => this.#codes.giveBack(key);
  }

  #remember(pair: string): void {
    this.#known.delete(pair);
    this.#known.add(pair);
    if (this.#known.size > FAMILIAR_KEPT) this.#known.delete(this.#known.values().next().value!);
  }
}

function mustBeTaken({ taken, waitMs }: { taken: boolean; waitMs: number }): void {
  if (taken) return;
  const seconds = Math.ceil(waitMs / 1000);
  throw new VirtgraphError({
    code: 'RATE_LIMITED',
    message: `Too many tries. Wait ${seconds} s.`,
  });
}

/** What one caller has for himself: an address of IPv4, the first half of one of IPv6. */
export function networkOf(address: string | null): string {
  if (address === null || !address.includes(':')) return address ?? 'unknown';
  const [head = '', tail] = address.split('::');
  const groups = head.split(':').filter(Boolean);
  const after = tail?.split(':').filter(Boolean) ?? [];
  const zeros = tail === undefined ? 0 : 8 - groups.length - after.length;
  return [...groups, ...Array.from({ length: zeros }, () => '0'), ...after].slice(0, 4).join(':');
}
