import { setTimeout as pause } from 'node:timers/promises';
import { atMost, type Benchmark } from './benchmark.ts';
import { loadBetween, readDatabaseLoad } from './support/database-load.ts';

const SETTLE_MS = 5_000;
const WATCH_MS = 30_000;

/** What a control plane costs that has nothing to do. */
export const idle: Benchmark = {
  name: 'idle',
  about: 'Memory, CPU and statements of a control plane that has nothing to do',
  async run(stage) {
    const { program } = await stage.startControl();
    await pause(SETTLE_MS);
    const [cpuBefore, before] = [await program.cpuMs(), await readDatabaseLoad(stage.pool)];
    await pause(WATCH_MS);
    const [cpuAfter, after] = [await program.cpuMs(), await readDatabaseLoad(stage.pool)];
    const { now, peak } = await program.memoryMib();
    const seconds = WATCH_MS / 1000;
    const load = loadBetween(before, after);
    return [
      { what: 'resident memory', value: now, unit: 'MiB', bound: atMost(150) },
      { what: 'resident memory, most since the start', value: peak, unit: 'MiB' },
      { what: 'CPU', value: ((cpuAfter - cpuBefore) / WATCH_MS) * 100, unit: '% of a core' },
      { what: 'statements', value: load.statements / seconds, unit: 'per s' },
      { what: 'statements that write', value: load.writes / seconds, unit: 'per s' },
    ];
  },
};
