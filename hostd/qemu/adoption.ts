import { mkdir, readdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { isId, uuidOfId } from './ids.ts';
import { argumentsOf, identify, isAlive, type ProcessIdentity, processesIn } from './proc.ts';
import { readRecord, type VmRecord } from './record.ts';

/** A VM that a daemon before left on this host. */
export interface LeftVm {
  vmId: string;
  record: VmRecord;
  /** Its QEMU; null: none runs. */
  process: ProcessIdentity | null;
}

/**
 * Finds every VM that has a folder, and the QEMU of each: the recorded one where it still runs, otherwise any that runs
 * in the folder under the VM's uuid, because a daemon may have been killed between starting QEMU and writing that down.
 */
export async function findLeftVms(vmsPath: string, log: Logger): Promise<LeftVm[]> {
  await mkdir(vmsPath, { recursive: true, mode: 0o700 });
  // The kernel tells working folders without symbolic links.
  const root = await realpath(vmsPath);
  const processes = await processesIn(root);
  const names = (await readdir(vmsPath)).filter((name) => isId('vm', name));
  const found = await Promise.all(
    names.map(async (vmId) => {
      const stray = await findQemu(vmId, processes.get(join(root, vmId, 'run')) ?? []);
      return look(vmId, join(vmsPath, vmId), stray, log);
    }),
  );
  return found.filter((vm) => vm !== null);
}

async function look(vmId: string, folder: string, stray: ProcessIdentity | null, log: Logger): Promise<LeftVm | null> {
  const record = await readOrReport(folder, log);
  if (record?.process && (await isAlive(record.process)) && (await isQemuOf(vmId, record.process.pid))) {
    return { vmId, record, process: record.process };
  }
  if (record) return { vmId, record, process: stray };
  if (!stray) return null;
  log.error({ vmId, pid: stray.pid }, 'a QEMU without a record is adopted; its volumes and epoch are not known');
  const spec = { vmId, vcpus: 1, memoryMib: 1, volumes: [] };
  return { vmId, record: { epoch: 0, spec, process: stray, ended: null }, process: stray };
}

async function readOrReport(folder: string, log: Logger): Promise<VmRecord | null> {
  try {
    return await readRecord(folder);
  } catch (error) {
    log.error({ err: error, folder }, 'the record of a VM is damaged');
    return null;
  }
}

async function findQemu(vmId: string, pids: number[]): Promise<ProcessIdentity | null> {
  for (const pid of pids) {
    if (await isQemuOf(vmId, pid)) return identify(pid);
  }
  return null;
}

/** Also true of one that is about to become it: what takes its rights away has QEMU's arguments among its own. */
async function isQemuOf(vmId: string, pid: number): Promise<boolean> {
  const args = await argumentsOf(pid);
  return args !== null && args[args.indexOf('-uuid') + 1] === uuidOfId(vmId);
}
