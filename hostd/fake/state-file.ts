import { readFile, rename, writeFile } from 'node:fs/promises';
import type { ObservedVmState } from '../generated/protocol.ts';
import type { VmSpec } from '../hypervisor.ts';

export interface FakeVm {
  spec: VmSpec;
  epoch: number;
  state: ObservedVmState;
  reason: string | null;
  /** Milliseconds since 1970; null: not since it was made. */
  bootedAt: number | null;
  endedAt: number | null;
}

/**
 * What a fake host's VMs are, kept while its daemon is gone, as real QEMUs are. Without a path nothing is kept. Survives
 * the process, not the machine: neither do VMs.
 */
export class FakeStateFile {
  readonly #path: string | null;
  #saving: Promise<void> = Promise.resolve();
  #due: Promise<void> | null = null;

  constructor(path: string | null) {
    this.#path = path;
  }

  async load(): Promise<Map<string, FakeVm>> {
    if (this.#path === null) return new Map();
    try {
      return new Map(Object.entries(JSON.parse(await readFile(this.#path, 'utf8')) as Record<string, FakeVm>));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return new Map();
    }
  }

  /** Returns once a write that began after the call is done; calls during a write share the next. */
  save(vms: ReadonlyMap<string, FakeVm>): Promise<void> {
    const path = this.#path;
    if (path === null) return Promise.resolve();
    if (this.#due) return this.#due;
    const write = async (): Promise<void> => {
      this.#due = null;
      await writeFile(`${path}.new`, JSON.stringify(Object.fromEntries(vms)), { mode: 0o600 });
      await rename(`${path}.new`, path);
    };
    this.#due = this.#saving.then(write, write);
    this.#saving = this.#due;
    return this.#due;
  }
}
