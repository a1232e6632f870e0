import { readFile } from 'node:fs/promises';

const KIB_PER_MIB = 1024;

/** Busy share of all CPUs between calls of `read`, 0 to 1; the first call answers for the time since boot. */
export class CpuLoad {
  #busy = 0;
  #total = 0;

  async read(): Promise<number> {
    const line = (await readFile('/proc/stat', 'utf8')).split('\n', 1)[0]!;
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
    const total = ticks.reduce((sum, value) => sum + value, 0);
    const busy = total - ticks[3]! - ticks[4]!;
    const passed = total - this.#total;
    const load = passed > 0 ? (busy - this.#busy) / passed : 0;
    this.#busy = busy;
    this.#total = total;
    return Math.min(1, Math.max(0, load));
  }
}

export async function readMemory(): Promise<{ totalMib: number; usedMib: number }> {
  const text = await readFile('/proc/meminfo', 'utf8');
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1]);
  const total = kib('MemTotal');
  return {
    totalMib: Math.floor(total / KIB_PER_MIB),
    usedMib: Math.floor((total - kib('MemAvailable')) / KIB_PER_MIB),
  };
}
