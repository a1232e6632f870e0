import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { type HostdOptions, startHostd } from '../../hostd/daemon.ts';
import { FakeHypervisor } from '../../hostd/fake/hypervisor.ts';
import { aCancel, aCommand, aStart } from './commands.ts';
import { temporaryFolder } from './temporary-folder.ts';
import { JOIN_SECRET, TestControlPlane } from './test-control-plane.ts';

const TIMING = { backoff: { minMs: 1, maxMs: 20 } };

async function aPlane(t: TestContext): Promise<TestControlPlane> {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  return plane;
}

async function aHostd(t: TestContext, plane: TestControlPlane, options: Partial<HostdOptions> = {}) {
  const hostd = await startHostd({
    urls: [plane.url],
    name: 'alpha',
    joinToken: plane.joinToken,
    hypervisor: 'fake',
    timing: TIMING,
    ...options,
  });
  t.after(() => hostd.close());
  return hostd;
}

test('A host registers once, keeps its key for itself, and opens a session with what it is', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const first = await aHostd(t, plane, { dataPath, fake: { facts: { vcpusTotal: 8, memoryTotalMib: 4_096 } } });
  await first.linked();
  assert.deepEqual(first.hostIds, ['host_alpha']);
  await first.close();

  const second = await aHostd(t, plane, { dataPath, joinToken: undefined });
  await second.linked();
  assert.deepEqual(second.hostIds, ['host_alpha']);

  assert.equal(plane.all('register').length, 1);
  const { name, joinToken, certificateRequest } = plane.all('register')[0]!.input;
  assert.deepEqual([name, joinToken], ['alpha', JOIN_SECRET]);
  assert.match(certificateRequest, /^-----BEGIN CERTIFICATE REQUEST-----/);
  const opened = plane.all('openSession');
  assert.deepEqual(
    opened.map(({ host }) => host),
    ['alpha', 'alpha'],
  );
  assert.equal(opened[0]?.shown, opened[1]?.shown, 'one certificate for both');
  assert.equal(opened[0]?.input.hypervisor, 'FAKE');
  assert.equal(opened[0]?.input.vcpusTotal, 8);
  assert.equal(opened[0]?.input.memoryTotalMib, 4_096);
  assert.deepEqual(opened[0]?.input.vms, []);
  const identity = join(dataPath, 'identity.json');
  assert.equal((await stat(identity)).mode & 0o777, 0o600);
  assert.match(await readFile(identity, 'utf8'), /-----BEGIN PRIVATE KEY-----/);
});

test('Commands that come several in a message are each answered, with what they found', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.command(
    aCommand('InspectImageCommand', 'job-1.1'),
    aCommand('PrepareTemplateCommand', 'job-1.2'),
    aCommand('CreateVolumeCommand', 'job-1.3'),
    aStart('job-1.4', 'vm-1'),
  );
  const inspected = await plane.answer('job-1.1');
  assert.equal(inspected.error ?? null, null);
  assert.equal(inspected.result?.virtualBytes, String(2 * 1024 ** 3));
  assert.match(inspected.result?.sha256 ?? '', /^[0-9a-f]{64}$/);
  assert.equal((await plane.answer('job-1.2')).result?.virtualBytes, String(2 * 1024 ** 3));
  for (const id of ['job-1.3', 'job-1.4']) assert.equal((await plane.answer(id)).error ?? null, null);
  assert.equal(hostd.underway, 0);
});

test('VM states are told at once, in order, and again in full to the next session', async (t) => {
  const plane = await aPlane(t);
  const fake = new FakeHypervisor({ log: pino({ level: 'silent' }) });
  const hostd = await aHostd(t, plane, { hypervisor: () => fake });
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1', 7));
  await plane.answer('job-1.1');
  const states = () => plane.all('reportVms').flatMap(({ vms }) => vms.map(({ state }) => state));
  await plane.until(() => states().includes('RUNNING'));
  fake.crash('vm-1', 'QEMU ended by signal 9');
  await plane.until(() => states().includes('CRASHED'));
  assert.deepEqual(
    states().filter((state) => state !== 'STARTING'),
    ['RUNNING', 'CRASHED'],
  );

  plane.cut();
  const { input } = await plane.hears('openSession', 2);
  assert.deepEqual(
    input.vms.map((vm) => ({ ...vm })),
    [{ vmId: 'vm-1', state: 'CRASHED', epoch: 7, reason: 'QEMU ended by signal 9' }],
  );
});

test('An answer that was not acknowledged is told again after the link was lost, and the command acted once', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  const acknowledge = plane.answers.reportCommands;
  plane.answers.reportCommands = () => {
    plane.answers.reportCommands = acknowledge;
    plane.cut();
    return true;
  };
  const start = aStart('job-1.1', 'vm-1');
  plane.command(start);
  await plane.hears('reportCommands', 2);
  await plane.hears('openSession', 2);
  assert.deepEqual(
    plane.all('reportCommands').map(({ reports }) => reports.map(({ commandId }) => commandId)),
    [['job-1.1'], ['job-1.1']],
  );
  await hostd.linked();
  plane.command(start, start);
  await plane.hears('reportCommands', 3);
  assert.equal((hostd.hypervisors[0] as FakeHypervisor).estate.doubleStarts, 0);
});

test('A crash is told once more behind an answer that comes late, which says that the VM runs', async (t) => {
  const plane = await aPlane(t);
  const fake = new FakeHypervisor({ log: pino({ level: 'silent' }) });
  const hostd = await aHostd(t, plane, { hypervisor: () => fake });
  await hostd.linked();
  const acknowledge = plane.answers.reportCommands;
  plane.answers.reportCommands = () => {
    plane.answers.reportCommands = acknowledge;
    fake.crash('vm-1');
    plane.cut();
    return true;
  };
  plane.command(aStart('job-1.1', 'vm-1', 7));
  const { input } = await plane.hears('openSession', 2);
  assert.deepEqual(
    input.vms.map(({ state }) => state),
    ['CRASHED'],
  );
  await plane.hears('reportCommands', 2);
  const last = () =>
    plane
      .all('reportVms')
      .at(-1)
      ?.vms.map(({ state }) => state);
  await plane.until(() => last()?.includes('CRASHED') ?? false);
});

test('Answers that the control plane refuses are split until the one it objects to stands alone', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.answers.reportCommands = (reports) => {
    if (reports.some(({ commandId }) => commandId === 'bad')) throw new Error('poisoned');
    return true;
  };
  plane.command(...['one', 'bad', 'two', 'three'].map((id) => aCommand('CreateVolumeCommand', id)));
  const acknowledged = () =>
    plane.all('reportCommands').flatMap(({ reports }) => {
      const ids = reports.map(({ commandId }) => commandId);
      return ids.includes('bad') ? [] : ids;
    });
  await plane.until(() => acknowledged().length === 3);
  assert.deepEqual(acknowledged().toSorted(), ['one', 'three', 'two']);
});

test('Heartbeats come at the interval that the server asks for, and a refused one opens another session', async (t) => {
  const plane = await aPlane(t);
  plane.heartbeatMs = 20;
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1'));
  await plane.answer('job-1.1');
  await plane.until(() => plane.all('heartbeat').some(({ input }) => input.vms.length === 1));
  const usage = plane.all('heartbeat').findLast(({ input }) => input.vms.length === 1)?.input.vms[0];
  assert.match(usage?.cpuNs ?? '', /^\d+$/);
  assert.match(usage?.networkReceiveBytes ?? '', /^\d+$/);

  plane.answers.heartbeat = ({ sessionId }) => sessionId !== 'session-1';
  const second = await plane.hears('openSession', 2);
  assert.equal(second.input.vms[0]?.state, 'RUNNING');
  await plane.until(() => plane.all('heartbeat').some(({ input }) => input.sessionId === 'session-2'));
});

test('A heartbeat that the control plane fails to take does not end the session', async (t) => {
  const plane = await aPlane(t);
  plane.heartbeatMs = 10;
  plane.answers.heartbeat = () => {
    throw new Error('the database is down');
  };
  const hostd = await aHostd(t, plane);
  await plane.hears('heartbeat', 5);
  assert.equal(plane.all('openSession').length, 1);
  await hostd.linked();
});

test('Heartbeats without any answer end the session', async (t) => {
  const plane = await aPlane(t);
  plane.heartbeatMs = 10;
  const never = Promise.withResolvers<boolean>();
  plane.answers.heartbeat = () => never.promise;
  await aHostd(t, plane);
  await plane.hears('openSession', 2);
  assert.ok(plane.all('heartbeat').length >= 3);
  never.resolve(true);
});

test('A link that was dropped silently is noticed by a ping without an answer', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane, { timing: { ...TIMING, keepAliveMs: 30 } });
  await hostd.linked();
  plane.freeze();
  await plane.hears('openSession', 2);
});

test('A control plane that ends the subscription gets another session', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.endSessions();
  await plane.hears('openSession', 2);
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1'));
  await plane.answer('job-1.1');
});

test('A host goes on to the next address when one does not answer, and waits for one that comes back', async (t) => {
  const gone = await TestControlPlane.start();
  const { url: goneUrl, port } = gone;
  await gone.stop();
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane, { urls: [goneUrl, plane.url] });
  await hostd.linked();
  await hostd.close();

  const late = await startHostd({
    urls: [goneUrl],
    name: 'late',
    joinToken: gone.joinToken,
    hypervisor: 'fake',
    timing: TIMING,
  });
  t.after(() => late.close());
  await gone.listen(port);
  t.after(() => gone.stop());
  await late.linked();
});

test('A registration that fails is tried again', async (t) => {
  const plane = await aPlane(t);
  const register = plane.answers.register;
  plane.answers.register = () => {
    plane.answers.register = register;
    throw new Error('the token is not known yet');
  };
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  assert.equal(plane.all('register').length, 2);
});

test('Progress is thinned to two messages a second and dropped while there is no link', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane, { fake: { prepareTemplate: { delayMs: 1_200 } } });
  await hostd.linked();
  const began = performance.now();
  plane.command(aCommand('PrepareTemplateCommand', 'job-1.1'));
  await plane.answer('job-1.1');
  const seconds = (performance.now() - began) / 1_000;
  const progress = plane.all('reportProgress').flatMap((one) => one.progress);
  assert.ok(progress.length >= 2, `${progress.length} messages`);
  assert.ok(progress.length <= 2 * seconds + 1, `${progress.length} messages in ${seconds} s`);
  assert.equal(progress[0]?.unit, 'bytes');
  const done = progress.map((one) => Number(one.done));
  assert.deepEqual(
    done,
    done.toSorted((a, b) => a - b),
  );
});

test('A watched serial log flows until a cancel, which is answered', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1'));
  await plane.answer('job-1.1');
  plane.command(aCommand('WatchSerialRequest', 'watch-1'));
  const first = await plane.hears('sendSerial', 1);
  const second = await plane.hears('sendSerial', 2);
  assert.equal(first.offset, '0');
  assert.match(first.text, /Linux version/);
  assert.equal(Number(second.offset), Buffer.byteLength(first.text));
  plane.command(aCancel('watch-1'));
  assert.equal((await plane.answer('watch-1')).error?.code, 'CANCELLED');
  await plane.until(() => hostd.underway === 0);
});

test('A watched serial log ends when nobody watches any more or the link is lost', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1'));
  await plane.answer('job-1.1');
  plane.answers.sendSerial = () => false;
  plane.command(aCommand('WatchSerialRequest', 'watch-1'));
  await plane.hears('sendSerial', 1);
  plane.answers.sendSerial = () => true;
  plane.command(aCommand('WatchSerialRequest', 'watch-2'));
  await plane.until(() => plane.all('sendSerial').some(({ commandId }) => commandId === 'watch-2'));
  assert.equal(hostd.underway, 1, 'the first watch is over');
  plane.cut();
  await plane.hears('openSession', 2);
  assert.equal(hostd.underway, 0);
  const answered = plane.all('reportCommands').flatMap(({ reports }) => reports.map(({ commandId }) => commandId));
  assert.deepEqual(answered, ['job-1.1']);
});

test('A killed daemon says nothing, and its successor answers from the journal', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const first = await aHostd(t, plane, { dataPath });
  await first.linked();
  plane.answers.reportCommands = () => new Promise<boolean>(() => undefined);
  plane.command(aStart('job-1.1', 'vm-1', 3));
  await plane.answer('job-1.1');
  await first.kill();

  plane.answers.reportCommands = () => true;
  const second = await aHostd(t, plane, { dataPath });
  const { input } = await plane.hears('openSession', 2);
  assert.deepEqual(
    input.vms.map(({ vmId, state, epoch }) => ({ vmId, state, epoch })),
    [{ vmId: 'vm-1', state: 'RUNNING', epoch: 3 }],
  );
  await second.linked();
  plane.command(aStart('job-1.1', 'vm-1', 3), aStart('job-2.1', 'vm-1', 2));
  assert.equal((await plane.answer('job-2.1')).error?.code, 'STALE_EPOCH');
  const { estate } = second.hypervisors[0] as FakeHypervisor;
  assert.equal(estate.doubleStarts, 0);
});

test('Many hosts in one process register by one token under names of their own', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane, { count: 100 });
  await hostd.linked();
  assert.equal(hostd.hostIds.length, 100);
  assert.equal(hostd.hostIds[0], 'host_alpha-0001');
  assert.equal(hostd.hostIds[99], 'host_alpha-0100');
  assert.equal(new Set(plane.all('openSession').map(({ shown }) => shown)).size, 100);
});
