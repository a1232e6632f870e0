import { setTimeout as pause } from 'node:timers/promises';
import { atMost, type Benchmark } from './benchmark.ts';
import { startByHand } from './compare/raw-qemu.ts';
import { inTurn, median } from './support/figures.ts';
import { createRealVm, type RealVm } from './support/real-host.ts';

const ROUNDS = 11;
/** So that no message about the VM is held back: what one VM tells is spread to four a second. */
const CALM_MS = 1_500;

/** What all of Virtgraph adds to the start of a QEMU. */
export const start: Benchmark = {
  name: 'start',
  about: 'From startVm until a subscriber is told that QEMU runs the guest, beside the same QEMU started by hand',
  async run(stage) {
    const vm = await createRealVm(stage);
    const handMs: number[] = [];
    const oursMs: number[] = [];
    // In turns, so that whatever else the machine does hits both alike.
    await inTurn(ROUNDS, async () => {
      handMs.push(await startByHand(vm.spec, vm.accelerator, stage.folder));
      oursMs.push(await startByUs(vm));
    });
    const [ours, hand] = [median(oursMs), median(handMs)];
    return [
      { what: `startVm to RUNNING (${vm.accelerator}), median of ${ROUNDS}`, value: ours, unit: 'ms' },
      { what: 'the same QEMU by hand, median', value: hand, unit: 'ms' },
      { what: 'added', value: ours - hand, unit: 'ms', bound: atMost(80, 40) },
    ];
  },
};

async function startByUs({ control, id, settled }: RealVm): Promise<number> {
  await pause(CALM_MS);
  const began = performance.now();
  const running = settled('RUNNING');
  await control.api.mutate('startVm', { id }, 'vm { id }');
  const tookMs = (await running) - began;
  await pause(CALM_MS);
  const stopped = settled('STOPPED');
  await control.api.mutate('stopVm', { id, force: true }, 'vm { id }');
  await stopped;
  return tookMs;
}
