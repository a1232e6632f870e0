import { median, repeat } from './figures.ts';
import type { Program } from './program.ts';

export interface LoadSubject {
  program: Program;
  ask: () => Promise<unknown>;
}

/** Medians over the slices. */
export interface Load {
  perSecond: number;
  /** Of the program that was asked. */
  cpuMsPerRequest: number;
  latencyMs: number;
}

export interface LoadTimes {
  lanes: number;
  warmUpMs: number;
  sliceMs: number;
  slices: number;
}

/**
 * Asks each of the subjects in turn, slice by slice, so that whatever else the machine does hits all alike, and reads
 * what it cost them.
 */
export async function measureInTurn(subjects: readonly LoadSubject[], times: LoadTimes): Promise<Load[]> {
  const { lanes, warmUpMs, sliceMs, slices } = times;
  for (const { ask } of subjects) await repeat(lanes, performance.now() + warmUpMs, ask);
  const all: Load[][] = subjects.map(() => []);
  for (let slice = 0; slice < slices; slice++)
    for (const [i, subject] of subjects.entries()) all[i]!.push(await measureSlice(subject, lanes, sliceMs));
  return all.map((loads) => ({
    perSecond: median(loads.map((load) => load.perSecond)),
    cpuMsPerRequest: median(loads.map((load) => load.cpuMsPerRequest)),
    latencyMs: median(loads.map((load) => load.latencyMs)),
  }));
}

async function measureSlice({ program, ask }: LoadSubject, lanes: number, sliceMs: number): Promise<Load> {
  const cpuBefore = await program.cpuMs();
  const began = performance.now();
  const latenciesMs = await repeat(lanes, began + sliceMs, ask);
  const seconds = (performance.now() - began) / 1000;
  const cpuMs = (await program.cpuMs()) - cpuBefore;
  const requests = latenciesMs.length;
  return { perSecond: requests / seconds, cpuMsPerRequest: cpuMs / requests, latencyMs: median(latenciesMs) };
}
