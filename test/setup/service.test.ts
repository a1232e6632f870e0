import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { portHolder } from '../../setup/port.ts';
import { identifyProcess, isRunning, ProcessRecords } from '../../setup/process-record.ts';
import { type ServiceOptions, startService } from '../../setup/service.ts';

const folder = await mkdtemp(join(tmpdir(), 'virtgraph-service-'));
after(() => rm(folder, { recursive: true }));

function options(name: string, program: string, signal = new AbortController().signal): ServiceOptions {
  return {
    name,
    args: ['-e', program],
    cwd: folder,
    env: process.env,
    logPath: join(folder, 'log', `${name}.log`),
    records: new ProcessRecords(join(folder, 'run')),
    signal,
  };
}
const STAYS = 'setInterval(() => {}, 1e6)';

test('a service is ready when it says so, is found by its record, and ends when it is stopped', async () => {
  const settings = options('good', `console.log('hello'); console.log('{"ready":true,"hosts":1}'); ${STAYS}`);
  const service = await startService(settings);
  assert.deepEqual(service.ready, { ready: true, hosts: 1 });
  const identity = await settings.records.running('good');
  assert.ok(identity);
  await service.stop();
  await service.ended;
  await service.stop();
  assert.equal(await settings.records.running('good'), null);
  assert.match(await readFile(service.logPath, 'utf8'), /^hello\n/);
});

test('a service that ends before it is ready is an error with its last words', async () => {
  const settings = options('bad', `console.error('no such table'); process.exit(3)`);
  await assert.rejects(startService(settings), /bad did not start.*\n.*bad.log ends with:\nno such table$/s);
  assert.equal(await settings.records.running('bad'), null);
});

test('the readiness of an earlier run does not count', async () => {
  const first = await startService(options('again', `console.log('{"ready":true,"run":1}'); ${STAYS}`));
  await first.stop();
  const second = await startService(options('again', `console.log('{"ready":true,"run":2}'); ${STAYS}`));
  assert.equal(second.ready['run'], 2);
  await second.stop();
});

test('an interrupted start leaves no process', async () => {
  const interrupt = new AbortController();
  const settings = options('slow', STAYS, interrupt.signal);
  const start = startService(settings);
  start.catch(() => interrupt.signal.aborted);
  let identity = await settings.records.running('slow');
  while (!identity) identity = await settings.records.running('slow');
  interrupt.abort(new Error('interrupted'));
  await assert.rejects(start, /interrupted/);
  assert.equal(await isRunning(identity), false);
});

test('a process is recognised by its start, not by its number', async () => {
  const self = await identifyProcess(process.pid);
  assert.ok(self && (await isRunning(self)));
  assert.equal(await isRunning({ ...self, startedAt: 'another boot:1' }), false);
  assert.equal(await isRunning({ ...self, command: 'other' }), false);
});

test('a claim is refused while its holder runs, and free as soon as the holder is killed', async () => {
  const claims = join(folder, 'claims');
  const module = JSON.stringify(import.meta.resolve('../../setup/process-record.ts'));
  const program = `const { ProcessRecords } = await import(${module});
    console.log(JSON.stringify({ ready: true, claimed: await new ProcessRecords(${JSON.stringify(claims)}).claim('start') }));
    ${STAYS}`;
  const holder = await startService(options('holder', program));
  assert.equal(holder.ready['claimed'], true);
  const records = new ProcessRecords(claims);
  assert.equal(await records.claim('start'), false);
  const recorded = await records.running('start');
  process.kill(recorded!.pid, 'SIGKILL');
  await holder.ended;
  assert.equal(await records.running('start'), null);
  assert.equal(await records.claim('start'), true);
  assert.equal((await records.running('start'))?.pid, process.pid);
});

test('a damaged record is an error that names the file', async () => {
  await writeFile(join(folder, 'torn.json'), '{"pid":');
  await assert.rejects(new ProcessRecords(folder).running('torn'), /torn\.json is damaged/);
});

test('a port in use is named with the process that holds it', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  assert.match((await portHolder('127.0.0.1', port)) ?? '', new RegExp(`^process ${process.pid} \\(`));
  server.close();
  await once(server, 'close');
  assert.equal(await portHolder('127.0.0.1', port), null);
});
