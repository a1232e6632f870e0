import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import type { Accelerator } from '../../hostd/qemu/accel.ts';
import { MONITOR_FD, qemuArguments, storagePaths } from '../../hostd/qemu/argv.ts';
import { QmpClient } from '../../hostd/qemu/qmp.ts';
import { volumesFolder } from '../../hostd/storage/paths.ts';

const GREETING_TIMEOUT_MS = 30_000;

/**
 * Starts QEMU with the same arguments by hand, lets the guest run and ends it. Answers the milliseconds from the start
 * of the process until it says that the guest runs.
 *
 * @param parent where a folder may be made for its sockets
 */
export async function startByHand(vm: VmSpec, accelerator: Accelerator, parent: string): Promise<number> {
  const folder = await mkdtemp(join(parent, 'raw-'));
  const storages = await Promise.all(storagePaths(vm).map((path) => open(volumesFolder(path), 'r')));
  try {
    const began = performance.now();
    const qemu = spawn('qemu-system-x86_64', qemuArguments(vm, accelerator), {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'inherit', 'pipe', ...storages.map(({ fd }) => fd)],
    });
    const exited = once(qemu, 'exit');
    const runs = Promise.withResolvers<void>();
    const qmp = await QmpClient.open(qemu.stdio[MONITOR_FD] as Duplex, {
      greetingTimeoutMs: GREETING_TIMEOUT_MS,
      onEvent: ({ event }) => {
        if (event === 'RESUME') runs.resolve();
      },
    });
    await qmp.execute('cont');
    await runs.promise;
    const tookMs = performance.now() - began;
    await qmp.execute('quit');
    await exited;
    return tookMs;
  } finally {
    await Promise.all(storages.map((storage) => storage.close()));
    await rm(folder, { recursive: true, force: true });
  }
}
