import { repeat } from './figures.ts';
import type { Program } from './program.ts';

export interface Load {
  requests: number;
  perSecond: number;
  /** Of the program that was asked. */
  cpuMsPerRequest: number;
  latenciesMs: number[];
}

/** Warms up, then asks for so long and reads what it cost `program`. */
export async function measureLoad(
  program: Program,
  ask: () => Promise<unknown>,
  options: { lanes: number; warmUpMs: number; forMs: number },
): Promise<Load> {
  await repeat(options.lanes, performance.now() + options.warmUpMs, ask);
  const cpuBefore = await program.cpuMs();
  const began = performance.now();
  const latenciesMs = await repeat(options.lanes, began + options.forMs, ask);
  const seconds = (performance.now() - began) / 1000;
  const cpuMs = (await program.cpuMs()) - cpuBefore;
  const requests = latenciesMs.length;
  return { requests, perSecond: requests / seconds, cpuMsPerRequest: cpuMs / requests, latenciesMs };
}
