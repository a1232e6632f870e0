import { Cgroups } from '../hostd/qemu/cgroup.ts';
import { dataFolder } from './data-folder.ts';
import { runningMariaDb } from './mariadb.ts';
import { type ProcessIdentity, ProcessRecords, stopProcess } from './process-record.ts';
import { findVmProcesses } from './process-search.ts';

/** The database may have much to write. */
const GRACE_MS = 30_000;

// The start first: it would take the end of its parts for a failure. Then in the order in which they need each other;
// each is there only where the start was killed. QEMU ends on SIGTERM with its images written out.
const records = new ProcessRecords(`${dataFolder}/run`);
let stopped = 0;
for (const name of ['start', 'hostd', 'control']) await stop(name, await records.running(name));
const vms = await findVmProcesses(dataFolder);
for (const vm of vms) await stop('a VM', vm);
await removeGroups(vms);
await stop('the database', await runningMariaDb(`${dataFolder}/database`));
if (stopped === 0) console.log(`Nothing runs from ${dataFolder}.`);

async function stop(what: string, running: ProcessIdentity | null): Promise<void> {
  if (!running) return;
  stopped++;
  const byItself = await stopProcess(running, GRACE_MS);
  console.log(`Stopped ${what} (process ${running.pid})${byItself ? '' : ', which had to be killed'}.`);
}

/** hostd does so when a VM ends, but it ended before them. */
async function removeGroups(vms: ProcessIdentity[]): Promise<void> {
  if (vms.length === 0) return;
  const cgroups = await Cgroups.find();
  for (const { command } of vms) {
    const vmId = /guest=(vm_\w+)/.exec(command)?.[1];
    try {
      if (vmId) await cgroups.remove(vmId);
    } catch (error) {
      console.error(`The cgroup of ${vmId} could not be removed: ${(error as Error).message}`);
    }
  }
}
