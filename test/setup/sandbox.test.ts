import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { identifyProcess, untilEnded } from '../../setup/process-record.ts';

const parent = await mkdtemp(join(tmpdir(), 'sandbox-'));
after(() => rm(parent, { recursive: true }));

/** Runs `program` (for `node -e`) in a sandbox of another process, as npm's scripts do. */
function sandbox(program: string, databaseUrl?: string) {
  const module = JSON.stringify(import.meta.resolve('../../setup/sandbox.ts'));
  const main = `const { runInSandbox } = await import(${module});
    const [parent, program, databaseUrl] = ${JSON.stringify([parent, program, databaseUrl])};
    process.exitCode = await runInSandbox(parent, ['-e', program], databaseUrl ?? undefined);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', main], { stdio: ['ignore', 'pipe', 'inherit'] });
  return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator](), end: once(child, 'exit') };
}

const DETACHED = `const { pid } = require('node:child_process')
  .spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { detached: true, stdio: 'ignore' }); console.log(pid);`;

test('the program has a database and a folder of its own, its exit code is the answer, and nothing remains', async () => {
  const { lines, end } = sandbox(`${DETACHED} console.log(process.env.DATABASE_URL); process.exit(7)`);
  const leftOver = await identifyProcess(Number((await lines.next()).value));
  assert.match(String((await lines.next()).value), /^mysql:\/\/root@localhost\/virtgraph\?socket=.*vgt-/);
  assert.deepEqual(await end, [7, null]);
  if (leftOver) await untilEnded(leftOver, { signal: AbortSignal.timeout(1_000) });
  assert.deepEqual(await readdir(parent), []);
});

test('a server that is given takes the place of the private one, of which there is nothing', async () => {
  const url = 'mysql://root@localhost/x?socket=/of/a/developer';
  const { lines, end } = sandbox(
    `${DETACHED} console.log(process.env.DATABASE_URL); 
      console.log(require('node:fs').readdirSync(process.env.TMPDIR)); process.exit(7)`,
    url,
  );
  const leftOver = await identifyProcess(Number((await lines.next()).value));
  assert.equal((await lines.next()).value, url);
  assert.equal((await lines.next()).value, '[]');
  assert.deepEqual(await end, [7, null]);
  if (leftOver) await untilEnded(leftOver, { signal: AbortSignal.timeout(1_000) });
  assert.deepEqual(await readdir(parent), []);
});

test('after an interrupt nothing remains either', async () => {
  const { child, lines, end } = sandbox(`${DETACHED} setInterval(() => {}, 1e6)`);
  const leftOver = await identifyProcess(Number((await lines.next()).value));
  assert.ok(leftOver);
  child.kill('SIGINT');
  child.kill('SIGINT');
  assert.deepEqual(await end, [130, null]);
  await untilEnded(leftOver, { signal: AbortSignal.timeout(1_000) });
  assert.deepEqual(await readdir(parent), []);
});
