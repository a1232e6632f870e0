import { X509Certificate } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What a host is to the control plane, from registration on. All but the id is PEM. */
export interface Identity {
  hostId: string;
  key: string;
  certificate: string;
  /** Of whoever issued the certificate, and issues those of control planes. */
  authority: string;
  /** Name of the join token that it joined with. */
  joinedBy: string;
}

/** A key that a certificate was asked for, or will be: asked again, it must be with the same. */
export interface NextKey {
  key: string;
  /** Name of the join token, or fingerprint of the certificate that is to be followed. */
  purpose: string;
}

/** What one host keeps. */
export interface Kept {
  identity: Identity | null;
  next: NextKey | null;
}

export const NOTHING_KEPT: Kept = { identity: null, next: null };

/** When a certificate begins and ends, and what it is known by. */
export function certificateFacts(certificate: string): { notBefore: number; notAfter: number; fingerprint: string } {
  const { validFromDate, validToDate, fingerprint256 } = new X509Certificate(certificate);
  return { notBefore: validFromDate.getTime(), notAfter: validToDate.getTime(), fingerprint: fingerprint256 };
}

/** Changes that go into one write. */
interface Round {
  changes: Map<number, Kept>;
  written: Promise<void>;
}

/** What this process's hosts keep, by position; written to one file, or held in memory alone. */
export class IdentityStore {
  readonly path: string | null;
  #kept: (Kept | null)[];
  #saving: Promise<void> = Promise.resolve();
  /** The next to be written. */
  #round: Round | null = null;

  private constructor(path: string | null, kept: (Kept | null)[]) {
    this.path = path;
    this.#kept = kept;
  }

  /** Throws what `readFile` and `JSON.parse` throw; a file that isn't there is an empty store. */
  static async open(path: string | null): Promise<IdentityStore> {
    if (path === null) return new IdentityStore(null, []);
    try {
      const { hosts } = JSON.parse(await readFile(path, 'utf8')) as { hosts: (Kept | { credential: string } | null)[] };
      // A credential of a version before certificates: nobody takes it any more.
      return new IdentityStore(
        path,
        hosts.map((kept) => (kept && 'credential' in kept ? null : kept)),
      );
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return new IdentityStore(path, []);
    }
  }

  /** What is durable: a certificate that is shown takes the one before it with it, so the next daemon must know it. */
  get(position: number): Kept {
    return this.#kept[position] ?? NOTHING_KEPT;
  }

  /**
   * Returns once it is durable: a key that is lost takes its certificate with it. The file is replaced as a whole, so a
   * crash leaves what was before or what is now. Many at the same time share one write; what can't be written is not kept.
   */
  async put(position: number, kept: Kept): Promise<void> {
    if (this.path === null) {
      this.#kept[position] = kept;
      return;
    }
    this.#round ??= this.#newRound(this.path);
    this.#round.changes.set(position, kept);
    await this.#round.written;
  }

  #newRound(path: string): Round {
    const changes = new Map<number, Kept>();
    const write = async (): Promise<void> => {
      this.#round = null;
      const all = Array.from(
        { length: Math.max(this.#kept.length, ...[...changes.keys()].map((position) => position + 1)) },
        (_, position) => changes.get(position) ?? this.#kept[position] ?? null,
      );
      await writeSecret(path, `${JSON.stringify({ hosts: all })}\n`);
      this.#kept = all;
    };
    this.#saving = this.#saving.then(write, write);
    return { changes, written: this.#saving };
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
