import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Benchmark } from './benchmark.ts';
import { create } from './create.ts';
import { event } from './event.ts';
import { fanout } from './fanout.ts';
import { hosts } from './hosts.ts';
import { idle } from './idle.ts';
import { list } from './list.ts';
import { type Result, resultOf, tableOf } from './report.ts';
import { start } from './start.ts';
import { Stage } from './support/stage.ts';
import { tree } from './tree.ts';

const BENCHMARKS: readonly Benchmark[] = [idle, list, tree, event, create, start, fanout, hosts];

const EXIT_MISSED = 1;
const EXIT_WRONG_USE = 2;
const SIGNAL_EXIT = { SIGINT: 130, SIGTERM: 143 } as const;

const { values, positionals } = readArguments();
const chosen = positionals[0] === 'all' ? BENCHMARKS : BENCHMARKS.filter(({ name }) => name === positionals[0]);
const databaseUrl = process.env['DATABASE_URL'];
if (positionals.length === 0) {
  process.stdout.write(help());
} else if (positionals.length > 1 || chosen.length === 0) {
  wrongUse(`There is no benchmark ${positionals.join(' ')}.`);
} else if (!databaseUrl) {
  wrongUse('DATABASE_URL is not set: use `npm run bench`.');
} else {
  process.exitCode = await runAll(chosen, databaseUrl);
}

/** One after the other: each has the machine for itself. Answers the exit code. */
async function runAll(benchmarks: readonly Benchmark[], url: string): Promise<number> {
  const interrupted = Promise.withResolvers<never>();
  interrupted.promise.catch(() => undefined);
  let exitCode: number | null = null;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      exitCode ??= SIGNAL_EXIT[signal];
      interrupted.reject(new Error(signal));
    });
  }
  const results: Result[] = [];
  let failed = 0;
  for (const benchmark of benchmarks) {
    const stage = await Stage.open({ databaseUrl: url, profilePath: values.profile && resolve(values.profile) });
    try {
      const result = resultOf(benchmark, await Promise.race([benchmark.run(stage), stage.broken, interrupted.promise]));
      results.push(result);
      if (!values.json) process.stdout.write(`${tableOf(benchmark, result)}\n\n`);
    } catch (error) {
      // What an interruption cuts off is no news.
      if (exitCode === null) process.stderr.write(`${benchmark.name}: ${(error as Error).stack}\n\n`);
      failed++;
    } finally {
      await stage.close();
    }
    if (exitCode !== null) return exitCode;
  }
  if (values.json) process.stdout.write(`${JSON.stringify(results)}\n`);
  return failed === 0 && results.every(({ ok }) => ok) ? 0 : EXIT_MISSED;
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { json: { type: 'boolean', default: false }, profile: { type: 'string' } },
    });
  } catch (error) {
    wrongUse((error as Error).message);
    process.exit();
  }
}

function wrongUse(message: string): void {
  process.stderr.write(`${message}\n\n${help()}`);
  process.exitCode = EXIT_WRONG_USE;
}

function help(): string {
  const width = Math.max(...BENCHMARKS.map(({ name }) => name.length));
  return [
    'Usage: npm run bench -- <name | all> [--json] [--profile FOLDER]',
    '',
    ...BENCHMARKS.map(({ name, about }) => `  ${name.padEnd(width)}  ${about}`),
    '',
    'Each starts the real processes and ends with 1 when a figure misses what is due.',
    '--profile writes a CPU profile of each control plane into the folder.',
    '',
  ].join('\n');
}
