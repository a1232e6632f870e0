import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What a host is to the control plane, from registration on. */
export interface Identity {
  hostId: string;
  credential: string;
}

/** The identities of this process's hosts, by position; written to one file, or kept in memory alone. */
export class IdentityStore {
  readonly path: string | null;
  readonly #identities: (Identity | null)[];
  #saving: Promise<void> = Promise.resolve();
  #dirty = false;

  private constructor(path: string | null, identities: (Identity | null)[]) {
    this.path = path;
    this.#identities = identities;
  }

  /** Throws what `readFile` and `JSON.parse` throw; a file that isn't there is an empty store. */
  static async open(path: string | null): Promise<IdentityStore> {
    if (path === null) return new IdentityStore(null, []);
    try {
      const { hosts } = JSON.parse(await readFile(path, 'utf8')) as { hosts: (Identity | null)[] };
      return new IdentityStore(path, hosts);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return new IdentityStore(path, []);
    }
  }

  get(position: number): Identity | null {
    return this.#identities[position] ?? null;
  }

  /** Returns once it is durable: a credential is shown only once. Many at the same time share one write. */
  async put(position: number, identity: Identity): Promise<void> {
    this.#identities[position] = identity;
    if (this.path === null) return;
    const path = this.path;
    if (!this.#dirty) {
      this.#dirty = true;
      const write = (): Promise<void> => {
        this.#dirty = false;
        return writeSecret(path, `${JSON.stringify({ hosts: this.#identities.map((one) => one ?? null) })}\n`);
      };
      this.#saving = this.#saving.then(write, write);
    }
    await this.#saving;
  }
}

/** Replaces the file as a whole, readable by its owner alone. */
async function writeSecret(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const fresh = `${path}.new`;
  const file = await open(fresh, 'w', 0o600);
  try {
    await file.chmod(0o600);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, path);
  const folder = await open(dirname(path));
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
