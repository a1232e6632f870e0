import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { GraphQLError } from 'graphql';
import { ArgumentError, readArguments } from '../../hostd/arguments.ts';
import { HostdOptionsError, startHostd } from '../../hostd/daemon.ts';
import { DataFolderInUse } from '../../hostd/data-folder.ts';
import { IdentityStore, type Kept, NOTHING_KEPT } from '../../hostd/identity.ts';
import { generateProtocol } from '../../schema/generate.ts';
import { aStart } from './commands.ts';
import { temporaryFolder } from './temporary-folder.ts';
import { JOIN_SECRET, TestControlPlane } from './test-control-plane.ts';

const MAIN = new URL('../../hostd/main.ts', import.meta.url).pathname;
const SURROUNDINGS = { environment: {}, machineName: 'machine' };

function aProcess(t: TestContext, ...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return child;
}

async function readyLine(child: ChildProcess): Promise<unknown> {
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string];
  return JSON.parse(line);
}

async function ended(child: ChildProcess): Promise<{ code: number | null; stderr: string }> {
  const stderr: Buffer[] = [];
  child.stderr!.on('data', (piece: Buffer) => stderr.push(piece));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stderr: Buffer.concat(stderr).toString() };
}

test('The daemon says when it is linked, ends at SIGTERM, and finds its VMs after a kill', async (t) => {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  const data = await temporaryFolder();
  const args = ['--url', plane.url, '--hypervisor', 'fake', '--data', data, '--name', 'alpha'];
  const first = aProcess(t, ...args, '--token', plane.joinToken);
  assert.deepEqual(await readyLine(first), { ready: true, hosts: 1, hypervisor: 'FAKE' });
  plane.command(aStart('job.1', 'vm-1', 6));
  await plane.answer('job.1');
  first.kill('SIGKILL');
  await once(first, 'exit');

  const second = aProcess(t, ...args);
  await readyLine(second);
  const { input } = await plane.hears('openSession', 2);
  assert.deepEqual(
    input.vms.map((vm) => ({ ...vm })),
    [{ vmId: 'vm-1', state: 'RUNNING', epoch: 6, reason: null }],
  );
  const third = aProcess(t, ...args);
  const refused = await ended(third);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /used by another host daemon/);

  second.kill('SIGTERM');
  assert.equal((await ended(second)).code, 0);
});

const refusal = (code: string): GraphQLError => new GraphQLError(`No: ${code}.`, { extensions: { code } });

test('A join token that is refused ends the daemon with 1, and the next one can have its folder', async (t) => {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  const { register } = plane.answers;
  plane.answers.register = () => {
    throw refusal('UNAUTHENTICATED');
  };
  const data = await temporaryFolder();
  const args = ['--url', plane.url, '--hypervisor', 'fake', '--data', data, '--name', 'alpha', '--token'];
  const refused = await ended(aProcess(t, ...args, plane.joinToken));
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^hostd: the join token was refused: No: UNAUTHENTICATED\.\n/m);
  assert.ok(!refused.stderr.includes(JOIN_SECRET), 'the token is not told');
  assert.equal(plane.all('register').length, 1);

  plane.answers.register = register;
  assert.deepEqual(await readyLine(aProcess(t, ...args, plane.joinToken)), {
    ready: true,
    hosts: 1,
    hypervisor: 'FAKE',
  });
});

test('A join token that admits fewer hosts than a process is ends all of them', async (t) => {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  const { register } = plane.answers;
  plane.answers.register = (input) => {
    if (plane.all('register').length > 2) throw refusal('UNAUTHENTICATED');
    return register(input);
  };
  const args = ['--url', plane.url, '--hypervisor', 'fake', '--token', plane.joinToken, '--count', '5'];
  const { code, stderr } = await ended(aProcess(t, ...args));
  assert.equal(code, 1);
  assert.equal(stderr.match(/^hostd: the join token was refused: /gm)?.length, 1);
});

test('A control plane that can not register now is asked again', async (t) => {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  const { register } = plane.answers;
  plane.answers.register = (input) => {
    const asked = plane.all('register').length;
    if (asked === 1) plane.cut();
    if (asked < 3) throw refusal('UNAVAILABLE');
    return register(input);
  };
  const data = await temporaryFolder();
  const args = ['--url', plane.url, '--hypervisor', 'fake', '--data', data, '--token', plane.joinToken];
  assert.deepEqual(await readyLine(aProcess(t, ...args)), { ready: true, hosts: 1, hypervisor: 'FAKE' });
  assert.equal(plane.all('register').length, 3);
});

test('Wrong arguments end the daemon with 2 and say what is wrong', async (t) => {
  const { code, stderr } = await ended(aProcess(t, '--url', 'http://localhost', '--hypervisor', 'xen'));
  assert.equal(code, 2);
  assert.match(stderr, /^hostd: --hypervisor is one of auto, kvm, tcg, fake\n/);
});

test('Arguments have defaults from the surroundings and are checked', async () => {
  const folder = await temporaryFolder();
  const tokenFile = join(folder, 'token');
  await writeFile(tokenFile, 'secret\n');
  const read = (...args: string[]) => readArguments(args, SURROUNDINGS);
  assert.deepEqual(await read('--url', 'http://a', '--url', 'http://b', '--token-file', tokenFile), {
    urls: ['http://a', 'http://b'],
    name: 'machine',
    joinToken: 'secret',
    dataPath: '.virtgraph/hostd',
    imagePath: '.virtgraph/images',
    hypervisor: 'auto',
    bridge: undefined,
    count: 1,
    fake: undefined,
  });
  const many = await readArguments(['--url', 'x', '--hypervisor', 'fake', '--count', '3', '--fake', '{"startVm":{}}'], {
    environment: { VIRTGRAPH_DATA: '/data' },
    machineName: 'machine',
  });
  assert.deepEqual([many?.dataPath, many?.imagePath, many?.count], [undefined, '/data/images', 3]);
  assert.deepEqual(many?.fake, { startVm: {} });
  assert.equal((await read('--url', 'x', '--bridge', 'br0'))?.bridge, 'br0');
  assert.equal(await read('--help'), null);

  for (const [args, message] of [
    [[], /--url/],
    [['--nonsense'], /nonsense/],
    [['stray'], /stray/],
    [['--url', 'x', '--count', 'many'], /--count/],
    [['--url', 'x', '--count', '2'], /--count/],
    [['--url', 'x', '--fake', '{}'], /--fake/],
    [['--url', 'x', '--hypervisor', 'fake', '--fake', '{'], /JSON/],
    [['--url', 'x', '--hypervisor', 'fake', '--fake', '{"x":1}'], /x/],
    [['--url', 'x', '--hypervisor', 'fake', '--fake', '{}', '--fake-config', tokenFile], /not both/],
    [['--url', 'x', '--bridge', 'br 0'], /--bridge is the name of a bridge/],
    [['--url', 'x', '--bridge', 'br0', '--hypervisor', 'fake'], /--bridge is not for/],
    [['--url', 'x', '--token', 'a', '--token-file', tokenFile], /not both/],
    [['--url', 'x', '--token-file', join(folder, 'none')], /--token-file: ENOENT/],
  ] as [string[], RegExp][]) {
    await assert.rejects(
      read(...args),
      (error: Error) => error instanceof ArgumentError && message.test(error.message),
    );
  }
});

test('A daemon that can not be is refused before it starts, and lets go of its folder', async () => {
  const dataPath = await temporaryFolder();
  const start = (options: object) =>
    startHostd({
      urls: ['https://localhost:1'],
      name: 'a',
      joinToken: `${JOIN_SECRET}.${'A'.repeat(43)}`,
      hypervisor: 'fake',
      dataPath,
      ...options,
    });
  await assert.rejects(start({ urls: [] }), HostdOptionsError);
  await assert.rejects(start({ urls: ['ftp://x'] }), HostdOptionsError);
  await assert.rejects(start({ urls: ['http://localhost:1'] }), HostdOptionsError, 'hosts speak TLS');
  await assert.rejects(start({ joinToken: JOIN_SECRET }), HostdOptionsError, 'a token says whom it may be told');
  await assert.rejects(start({ count: 0 }), HostdOptionsError);
  await assert.rejects(start({ count: 2, hypervisor: 'tcg' }), HostdOptionsError);
  await assert.rejects(start({ joinToken: undefined }), HostdOptionsError);
  await assert.rejects(start({ hypervisor: 'tcg' }), HostdOptionsError);
  const hostd = await start({});
  await assert.rejects(start({}), DataFolderInUse);
  const linked = assert.rejects(hostd.linked(), /closed/);
  await hostd.close();
  await linked;
  await (await start({})).kill();
});

const kept = (i: number): Kept => ({
  identity: null,
  next: { key: `key-${i}`, purpose: 'a token' },
});

test('Identities registered at once share a file that only its owner can read', async () => {
  const path = join(await temporaryFolder(), 'deep', 'identity.json');
  const store = await IdentityStore.open(path);
  await Promise.all(Array.from({ length: 50 }, (_, i) => store.put(i, kept(i))));
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const read = await IdentityStore.open(path);
  for (let i = 0; i < 50; i++) assert.deepEqual(read.get(i), kept(i));
  assert.deepEqual(read.get(50), NOTHING_KEPT);
});

test('An identity that can not be written fails the one who registers', async () => {
  const folder = await temporaryFolder();
  await mkdir(join(folder, 'identity.json.new'));
  const store = await IdentityStore.open(join(folder, 'identity.json'));
  await assert.rejects(store.put(0, kept(0)), /EISDIR/);
});

test('The types that hostd is written against are those of the committed schema', async () => {
  const sdl = await readFile(new URL('../../schema/hostd.graphql', import.meta.url), 'utf8');
  const committed = await readFile(new URL('../../hostd/generated/protocol.ts', import.meta.url), 'utf8');
  assert.equal(await generateProtocol(sdl), committed);
});
