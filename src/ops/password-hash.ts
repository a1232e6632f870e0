import { argon2, randomBytes, timingSafeEqual } from 'node:crypto';
import { VirtgraphError } from '../domain/errors.ts';
import { canonicalPassword } from '../domain/password.ts';

/** Of argon2id. */
export interface HashParameters {
  memoryKib: number;
  passes: number;
  lanes: number;
}

/** @see OWASP Password Storage Cheat Sheet, argon2id */
const PARAMETERS: HashParameters = { memoryKib: 19_456, passes: 2, lanes: 1 };

const SALT_BYTES = 16;
const HASH_BYTES = 32;
/** Hashes at work at a time: each takes its memory and a thread that files and look-ups of names need too. */
const AT_ONCE = 2;
/** What waits is answered within a few seconds, or not at all. */
const WAITING = 64;

interface Parsed extends HashParameters {
  salt: Buffer;
  hash: Buffer;
}

const unpadded = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '');

/** @see the PHC string format */
const written = ({ memoryKib, passes, lanes, salt, hash }: Parsed): string =>
  `$argon2id$v=19$m=${memoryKib},t=${passes},p=${lanes}$${unpadded(salt)}$${unpadded(hash)}`;

const PHC = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

function parsed(phc: string): Parsed {
  const [, memory, passes, lanes, salt, hash] = PHC.exec(phc) ?? [];
  if (hash === undefined) throw new Error('A password hash is not of the form that is written here.');
  return {
    memoryKib: Number(memory),
    passes: Number(passes),
    lanes: Number(lanes),
    salt: Buffer.from(salt!, 'base64'),
    hash: Buffer.from(hash, 'base64'),
  };
}

/**
 * Hashes and compares passwords, a few at a time: whoever floods it with sign-ins takes neither all memory nor all
 * threads, and is told to come back.
 */
export class PasswordHasher {
  readonly #parameters: HashParameters;
  /** What a password is compared with where there is no user: nothing fits it, and it takes as long. */
  readonly #nobodys: string;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(parameters: HashParameters = PARAMETERS) {
    this.#parameters = parameters;
    this.#nobodys = written({ ...parameters, salt: randomBytes(SALT_BYTES), hash: randomBytes(HASH_BYTES) });
  }

  /** @returns a PHC string. @throws VirtgraphError RATE_LIMITED when too many wait already */
  async hash(password: string): Promise<string> {
    const salt = randomBytes(SALT_BYTES);
    return written({ ...this.#parameters, salt, hash: await this.#derive(password, this.#parameters, salt) });
  }

  /**
   * Whether it is the password of the hash; of none, which takes as long, it is not.
   *
   * @returns also whether it should be hashed anew, because the parameters have changed since
   * @throws VirtgraphError RATE_LIMITED when too many wait already
   */
  async verify(password: string, phc: string | null): Promise<{ right: boolean; outdated: boolean }> {
    const { salt, hash, ...parameters } = parsed(phc ?? this.#nobodys);
    const right = timingSafeEqual(await this.#derive(password, parameters, salt, hash.length), hash) && phc !== null;
    const { memoryKib, passes, lanes } = this.#parameters;
    const same = parameters.memoryKib === memoryKib && parameters.passes === passes && parameters.lanes === lanes;
    return { right, outdated: right && !same };
  }

  async #derive(password: string, parameters: HashParameters, nonce: Buffer, length = HASH_BYTES): Promise<Buffer> {
    await this.#turn();
    try {
      return await new Promise((resolve, reject) =>
        argon2(
          'argon2id',
          {
            message: canonicalPassword(password),
            nonce,
            memory: parameters.memoryKib,
            passes: parameters.passes,
            parallelism: parameters.lanes,
            tagLength: length,
          },
          (error, derived) => (error ? reject(error) : resolve(derived)),
        ),
      );
    } finally {
      // Whoever waits takes the place over, so that nobody slips in between.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }

  async #turn(): Promise<void> {
    if (this.#running < AT_ONCE) {
      this.#running++;
      return;
    }
    if (this.#waiting.length >= WAITING)
      throw new VirtgraphError({ code: 'RATE_LIMITED', message: 'Too many sign in at this moment. Try again.' });
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}
