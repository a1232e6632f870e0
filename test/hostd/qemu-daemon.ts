import { pino } from 'pino';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import { QemuHypervisor } from '../../hostd/qemu/hypervisor.ts';

/** A daemon to be killed: starts the VMs that it is given and tells each state, one a line. */
const [dataPath, imagePath, specs] = process.argv.slice(2);
const log = pino({ level: 'silent' });
const hypervisor = new QemuHypervisor({ dataPath: dataPath!, imagePath: imagePath!, log, accel: 'tcg' });
await hypervisor.start(({ state }) => process.stdout.write(`${state}\n`));
const run = { signal: new AbortController().signal, progress: () => undefined };
await Promise.all((JSON.parse(specs!) as VmSpec[]).map((vm) => hypervisor.startVm(vm, 7, run)));
process.stdout.write('all run\n');
