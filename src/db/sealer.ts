import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { Kysely } from 'kysely';
import { readOrMakeSecret } from './secret-file.ts';
import type { Database } from './tables.ts';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** The first byte of all that is sealed, so that another form can be told from this one. */
const VERSION = 1;

/** Something was not sealed by this key, or not for this purpose, or has been changed. */
export class SealBroken extends Error {}

/** What keeps a control plane from starting: the key is not that of the database, or is no key. */
export class SealingKeyError extends Error {}

/**
 * Seals the secrets that must be readable again, so that whoever has the database alone has none of them: AES-256-GCM
 * with a key that is in a file. What only has to be recognised is hashed instead.
 */
export class Sealer {
  readonly #key: Buffer;

  /** @param key 32 bytes */
  constructor(key: Buffer) {
    if (key.length !== KEY_BYTES) throw new SealingKeyError(`A sealing key has ${KEY_BYTES} bytes, not ${key.length}.`);
    this.#key = key;
  }

  /** @param purpose is not secret; whoever opens it has to name the same: `totp 1007` */
  seal(secret: Buffer | string, purpose: string): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(purpose));
    const text = Buffer.concat([cipher.update(secret), cipher.final()]);
    return Buffer.concat([Buffer.of(VERSION), nonce, cipher.getAuthTag(), text]);
  }

  /** @throws SealBroken */
  open(sealed: Buffer, purpose: string): Buffer {
    const textAt = 1 + NONCE_BYTES + TAG_BYTES;
    if (sealed.length < textAt || sealed[0] !== VERSION) throw new SealBroken('This was not sealed here.');
    const decipher = createDecipheriv('aes-256-gcm', this.#key, sealed.subarray(1, 1 + NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(Buffer.from(purpose)).setAuthTag(sealed.subarray(1 + NONCE_BYTES, textAt));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(textAt)), decipher.final()]);
    } catch (error) {
      throw new SealBroken(`What was sealed as ${purpose} can not be opened.`, { cause: error });
    }
  }
}

/**
 * The key of a file, which is made if there is none. Two processes that make it at once have the same afterwards.
 *
 * @throws SealingKeyError for a file that holds something else
 */
export async function readSealingKey(path: string): Promise<Buffer> {
  const text = await readOrMakeSecret(path, () => randomBytes(KEY_BYTES).toString('base64'));
  const key = Buffer.from(text, 'base64');
  if (key.length === KEY_BYTES) return key;
  throw new SealingKeyError(`${path} holds no sealing key: that is ${KEY_BYTES} bytes in base64.`);
}

const CHECK = { id: 1, purpose: 'sealing check', text: 'virtgraph' };

/**
 * Every control plane of a database has the same key.
 *
 * @throws SealingKeyError
 */
export async function mustBeKeyOf(db: Kysely<Database>, sealer: Sealer): Promise<void> {
  await db
    .insertInto('sealing_check')
    .values({ id: CHECK.id, sealed: sealer.seal(CHECK.text, CHECK.purpose) })
    .onDuplicateKeyUpdate({ id: CHECK.id })
    .execute();
  const { sealed } = await db.selectFrom('sealing_check').select('sealed').executeTakeFirstOrThrow();
  try {
    sealer.open(sealed, CHECK.purpose);
  } catch (error) {
    if (!(error instanceof SealBroken)) throw error;
    throw new SealingKeyError(
      'The sealing key is not the one of this database. Copy the file `sealing-key` from the data folder of the control plane that made it.',
    );
  }
}
