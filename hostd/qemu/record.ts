import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

const RECORD_FILE = 'vm.json';

const Volume = z.object({
  volumeId: z.string(),
  storagePath: z.string(),
  format: z.enum(['QCOW2', 'RAW']),
  sizeBytes: z.number().nullable(),
});

const Record = z.object({
  epoch: z.number(),
  spec: z.object({ vmId: z.string(), vcpus: z.number(), memoryMib: z.number(), volumes: z.array(Volume) }),
  /** Null: not known yet. A QEMU may run all the same, and is found by its working folder. */
  process: z.object({ pid: z.number(), startTicks: z.number(), bootId: z.string() }).nullable(),
  /** How it ended; null: not that we know. */
  ended: z.object({ state: z.enum(['STOPPED', 'CRASHED']), reason: z.string() }).nullable(),
});

/** What a host keeps of a VM, so that a daemon that starts anew finds it again. */
export type VmRecord = z.infer<typeof Record>;

/**
 * Replaces the record at once: a reader meets the old or the new one. It need not outlive the machine's power, which
 * ends the VM too; what must, the highest epoch, is in the journal. So starting a VM waits for no disk.
 */
export async function writeRecord(folder: string, record: VmRecord): Promise<void> {
  const path = join(folder, RECORD_FILE);
  await writeFile(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** Null where there is none. Throws a `SyntaxError` or `ZodError` for a damaged one. */
export async function readRecord(folder: string): Promise<VmRecord | null> {
  try {
    return Record.parse(JSON.parse(await readFile(join(folder, RECORD_FILE), 'utf8')));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
