import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';

const root = resolve(import.meta.dirname, '..');
const tool = (name: string) => resolve(root, 'node_modules/.bin', name);

/** Everything that must hold besides the tests. The order is that of the quickest answer to the likeliest mistake. */
const CHECKS: { name: string; command: string[] }[] = [
  { name: 'types', command: [tool('tsc'), '-p', '.'] },
  { name: 'format and lint', command: [tool('biome'), 'ci', '--colors=off', '.'] },
  { name: 'public schema as committed', command: [process.execPath, 'schema/print.ts', '--check'] },
  { name: 'generated types as committed', command: [process.execPath, 'schema/generate.ts', '--check'] },
  { name: 'rules of the repository', command: [process.execPath, '--test', 'test/repo/**/*.test.ts'] },
  { name: 'nothing unused', command: [tool('knip'), '--no-progress', '--config', 'setup/knip.json'] },
];

let failed = 0;
for (const { name, command } of CHECKS) {
  const began = performance.now();
  const { code, output } = await run(command);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${code === 0 ? '✔' : '✘'} ${name} (${seconds} s)`);
  if (code !== 0) console.log(`\n${output.trimEnd()}\n`);
  if (code !== 0) failed++;
}
console.log(failed === 0 ? 'All checks hold.' : `${failed} of ${CHECKS.length} checks failed.`);
process.exitCode = failed === 0 ? 0 : 1;

async function run([program, ...args]: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn(program!, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  const end = once(child, 'close');
  const [out, error] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code] = await end;
  return { code, output: out + error };
}
