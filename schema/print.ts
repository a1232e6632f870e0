/**
 * Prints the contracts, sorted: `node schema/print.ts` writes `control.graphql` and `hostd.graphql`; `--check` compares
 * them with the code instead, and exits 1 with what differs.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { diff, parseArgs } from 'node:util';
import { type GraphQLSchema, lexicographicSortSchema, printSchema } from 'graphql';
import { schema } from '../src/graphql/schema.ts';
import { hostdSchema } from '../src/hostd-api/schema.ts';

export const CONTRACTS: Record<string, GraphQLSchema> = { 'control.graphql': schema, 'hostd.graphql': hostdSchema };

/** The text of a contract. */
export const print = (contract: GraphQLSchema): string => `${printSchema(lexicographicSortSchema(contract))}\n`;

/** The committed text of a contract; empty when there is none yet. */
export async function committed(file: string): Promise<string> {
  return readFile(new URL(file, import.meta.url), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
}

const CONTEXT_LINES = 2;

/** What changed from one text to the other: lines with `-` or `+`, each with a little of what surrounds it. */
export function readableDiff(before: string, after: string): string {
  const entries = diff(before.split('\n'), after.split('\n'));
  const shown = new Set<number>();
  entries.forEach(([operation], at) => {
    if (operation === 0) return;
    for (let near = at - CONTEXT_LINES; near <= at + CONTEXT_LINES; near++) shown.add(near);
  });
  const lines: string[] = [];
  let last = -1;
  entries.forEach(([operation, line], at) => {
    if (!shown.has(at)) return;
    if (at > last + 1) lines.push('…');
    last = at;
    lines.push(`${SIGN[operation]} ${line}`);
  });
  return lines.join('\n');
}
/** `diff` says what it takes to get from its second argument to its first. */
const SIGN = { [-1]: '+', 0: ' ', 1: '-' };

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
  for (const [file, contract] of Object.entries(CONTRACTS)) {
    const wanted = print(contract);
    if (!values.check) {
      await writeFile(new URL(file, import.meta.url), wanted);
      continue;
    }
    const found = await committed(file);
    if (found === wanted) continue;
    console.error(`schema/${file} is not what the code says: run node schema/print.ts\n${readableDiff(found, wanted)}`);
    process.exitCode = 1;
  }
}

if (import.meta.main) await main();
