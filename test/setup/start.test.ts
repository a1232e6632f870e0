import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { ProcessRecords } from '../../setup/process-record.ts';
import { findVmProcesses } from '../../setup/process-search.ts';

/** The whole product, as somebody uses it who has just cloned it. */
describe('npm start', { timeout: 240_000 }, () => {
  const root = resolve(import.meta.dirname, '../..');
  let folder: string;
  let port: number;
  let env: NodeJS.ProcessEnv;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vgs-'));
    const probe = createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    port = (probe.address() as AddressInfo).port;
    probe.close();
    const { DATABASE_URL: _, ...rest } = process.env;
    env = { ...rest, VIRTGRAPH_DATA: folder };
  });
  after(async () => {
    await run('down').end();
    await rm(folder, { recursive: true });
  });

  const command = (args: string[], more: NodeJS.ProcessEnv = {}) =>
    new Command([join(root, 'setup/bootstrap.mjs'), ...args], { ...env, ...more });
  const run = (...args: string[]) => command(args);
  const start = (more?: NodeJS.ProcessEnv) => command(['start', '--port', String(port)], more);

  test('makes a first VM before your eyes, leaves it running on Ctrl-C, finds it again, and down ends it', async () => {
    const first = start();
    const seen = await first.until(/npm run down stops everything\.\n/);
    assert.match(seen, /host {18}runs VMs (with KVM|by emulation)/);
    assert.match(seen, /^template {14}a tiny Linux, which is built once\nRegistering the template tiny-linux\n/m);
    assert.match(seen, /Creating the VM first-vm\n(?: {2}[^\n]+\n)*? {2}✔ start VM/);
    assert.match(seen, /│ Virtgraph tiny Linux\n(?: {2}│ [^\n]+\n)+ {2}│ ready\n/);
    assert.match(seen, new RegExp(`http://127\\.0\\.0\\.1:${port}/graphiql#token=\\S+\n`));

    const second = start();
    const refusal = await second.end();
    assert.equal(refusal.code, 1);
    assert.match(refusal.complaints, /^Virtgraph runs already from .* \(process \d+\)\.\n/);

    first.process.kill('SIGINT');
    const stopped = await first.end();
    assert.match(stopped.printed, /\nStopped\. 1 VM goes on running/);
    assert.equal(stopped.code, 0);
    const [vm] = await findVmProcesses(folder);
    assert.ok(vm);

    const again = start();
    const found = await again.until(/stops everything\.\n/);
    assert.doesNotMatch(found, /^template/m);
    assert.match(found, /^ {2}first-vm +RUNNING +1 vCPU, 256 MiB, on host-1$/m);
    assert.deepEqual(await findVmProcesses(folder), [vm]);

    const hostd = await new ProcessRecords(join(folder, 'run')).running('hostd');
    process.kill(hostd!.pid, 'SIGKILL');
    assert.match((await again.end()).complaints, /hostd was killed.*\n\nThe rest is stopped\. 1 VM goes on running/);

    const last = start();
    await last.until(/stops everything\.\n/);
    assert.match((await run('down').end()).printed, /Stopped start .*\nStopped a VM .*\n$/);
    assert.deepEqual(await findVmProcesses(folder), []);
    const vmId = /guest=(vm_\w+)/.exec(vm.command)![1]!;
    const groups = ['', 'cpu', 'memory'].map((controller) => join('/sys/fs/cgroup', controller, 'virtgraph', vmId));
    assert.deepEqual(groups.filter(existsSync), [], 'not even the limits of the VM are left');
    assert.equal((await last.end()).code, 0);
  });

  test('takes up what a killed start left, and says when a part of it ends by itself', async () => {
    const killed = start();
    await killed.until(/stops everything\.\n/);
    const records = new ProcessRecords(join(folder, 'run'));
    const [starter, orphan] = await Promise.all([records.running('start'), records.running('control')]);
    process.kill(starter!.pid, 'SIGKILL');
    await killed.end();

    const next = start();
    await next.until(/stops everything\.\n/);
    const control = await records.running('control');
    assert.notEqual(control!.pid, orphan!.pid);
    process.kill(control!.pid, 'SIGKILL');
    const broken = await next.end();
    assert.equal(broken.code, 1);
    assert.match(broken.complaints, /control was killed \(SIGKILL\)\. Its log: .*control\.log\n/);
    assert.equal(await records.running('hostd'), null);
  });

  test('takes no database but a MariaDB or MySQL', async () => {
    const refused = await start({ DATABASE_URL: 'postgres://root:secret@localhost/x' }).end();
    assert.equal(refused.code, 1);
    assert.match(refused.complaints, /^DATABASE_URL is not the URL of a MariaDB or MySQL: mysql:.*$/m);
    assert.ok(!refused.complaints.includes('secret'));
    assert.equal(refused.printed, '');
  });

  test('names the process that holds its port', async () => {
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    const refused = await start().end();
    server.close();
    assert.match(refused.complaints, new RegExp(`Port ${port} is in use by process ${process.pid} `));
    assert.equal(refused.code, 1);
  });
});

/** A command that runs, and all that it prints. */
class Command {
  readonly process: ChildProcessByStdio<null, Readable, Readable>;
  readonly #complaints: Promise<string>;
  readonly #exit: Promise<[number | null]>;
  readonly #output: AsyncIterator<string>;
  #printed = '';

  constructor(args: string[], env: NodeJS.ProcessEnv) {
    this.process = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#complaints = text(this.process.stderr);
    this.#exit = once(this.process, 'exit') as Promise<[number | null]>;
    this.#output = this.process.stdout.setEncoding('utf8')[Symbol.asyncIterator]();
  }

  /** Waits until it has printed what matches `pattern`, and answers all it printed. Rejects where it ends first. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.#printed)) {
      if (!(await this.#more()))
        throw new Error(`${this.#printed}\n${await this.#complaints}\nended without ${pattern}`);
    }
    return this.#printed;
  }

  async end(): Promise<{ code: number | null; printed: string; complaints: string }> {
    while (await this.#more());
    const [code] = await this.#exit;
    return { code, printed: this.#printed, complaints: await this.#complaints };
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#output.next();
    this.#printed += value ?? '';
    return !done;
  }
}
