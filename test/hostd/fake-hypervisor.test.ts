import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { inflateSync } from 'node:zlib';
import { pino } from 'pino';
import { type FakeConfig, FakeConfigError } from '../../hostd/fake/config.ts';
import { FakeEstate } from '../../hostd/fake/estate.ts';
import { FakeHypervisor, type FakeHypervisorOptions } from '../../hostd/fake/hypervisor.ts';
import { CommandError, type Run, type VmObservation, type VmSpec } from '../../hostd/hypervisor.ts';
import { temporaryFolder } from './temporary-folder.ts';

const log = pino({ level: 'silent' });
const VOLUME = { volumeId: 'volume-1', storagePath: '/pool', format: 'QCOW2', sizeBytes: null } as const;

function aSpec(vmId: string): VmSpec {
  return { vmId, vcpus: 2, memoryMib: 512, volumes: [VOLUME] };
}

function aRun(signal: AbortSignal = new AbortController().signal, progress: Run['progress'] = () => undefined): Run {
  return { signal, progress };
}

async function aFake(config: FakeConfig = {}, options: Partial<FakeHypervisorOptions> = {}) {
  const fake = new FakeHypervisor({ log, config, ...options });
  const seen: VmObservation[] = [];
  await fake.start((vm) => seen.push(vm));
  return { fake, seen };
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CommandError && error.code === code;
}

test('A VM starts, pauses, resumes, stops and is removed, and each change is seen', async () => {
  const { fake, seen } = await aFake();
  await fake.startVm(aSpec('vm-1'), 3, aRun());
  await fake.controlVm('vm-1', 'PAUSE', aRun());
  await fake.controlVm('vm-1', 'RESUME', aRun());
  await fake.stopVm('vm-1', 'GRACEFUL', 1_000, aRun());
  await fake.stopVm('vm-1', 'FORCE', 0, aRun());
  await fake.removeVm('vm-1', aRun());
  await fake.removeVm('vm-1', aRun());
  assert.deepEqual(
    seen.map(({ state }) => state),
    ['STARTING', 'RUNNING', 'PAUSED', 'RUNNING', 'STOPPED', 'ABSENT'],
  );
  assert.equal(seen[4]?.reason, 'guest powered off');
  assert.ok(seen.every(({ epoch }) => epoch === 3));
  assert.deepEqual(fake.observe(), []);
});

test('A start that is asked for again finds the VM running; at another epoch it is refused', async () => {
  const { fake } = await aFake();
  await fake.startVm(aSpec('vm-1'), 3, aRun());
  await fake.startVm(aSpec('vm-1'), 3, aRun());
  await assert.rejects(fake.startVm(aSpec('vm-1'), 4, aRun()), hasCode('QEMU_FAILED'));
  assert.equal(fake.estate.doubleStarts, 0);
});

test('A VM that starts on two hosts of an estate is counted', async () => {
  const estate = new FakeEstate();
  const { fake: one } = await aFake({}, { estate });
  const { fake: two } = await aFake({}, { estate });
  await one.startVm(aSpec('vm-1'), 1, aRun());
  await one.stopVm('vm-1', 'FORCE', 0, aRun());
  await two.startVm(aSpec('vm-1'), 2, aRun());
  assert.equal(estate.doubleStarts, 0);
  await one.startVm(aSpec('vm-1'), 3, aRun());
  assert.equal(estate.doubleStarts, 1);
});

test('A rule may fail an operation for some times, for one VM, with a code', async () => {
  const { fake, seen } = await aFake({
    startVm: [
      { vmId: 'vm-2', fail: 'DISK_FULL' },
      { fail: 'QEMU_FAILED', failTimes: 1, message: 'broken' },
    ],
  });
  await assert.rejects(fake.startVm(aSpec('vm-1'), 1, aRun()), /broken/);
  assert.deepEqual(
    seen.map(({ state }) => state),
    ['STARTING', 'ABSENT'],
  );
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  for (let i = 0; i < 2; i++) await assert.rejects(fake.startVm(aSpec('vm-2'), 1, aRun()), hasCode('DISK_FULL'));
});

test('A delay shows progress and ends when the command is aborted', async () => {
  const { fake } = await aFake({ prepareTemplate: { delayMs: 60_000 } });
  const abort = new AbortController();
  const seen: string[] = [];
  const reason = new CommandError('CANCELLED', 'cancelled');
  const run = aRun(abort.signal, (done, total, unit) => {
    seen.push(`${done}/${total} ${unit}`);
    abort.abort(reason);
  });
  await assert.rejects(fake.prepareTemplate({ fileName: 'a.img', sha256: '' }, run), reason);
  assert.deepEqual(seen, [`0/${2 * 1024 ** 3} bytes`]);
});

test('A guest that ignores its power button times out, or is ended by force where that is allowed', async () => {
  const { fake } = await aFake({ stopVm: { hang: true } });
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  await assert.rejects(fake.stopVm('vm-1', 'GRACEFUL', 5, aRun()), hasCode('TIMEOUT'));
  assert.equal(fake.observe()[0]?.state, 'RUNNING');
  await fake.stopVm('vm-1', 'GRACEFUL_THEN_FORCE', 5, aRun());
  assert.deepEqual(fake.observe()[0], { vmId: 'vm-1', state: 'STOPPED', epoch: 1, reason: 'ended by force' });
});

test('A VM crashes when it is told to, by configuration or by a test', async () => {
  const fake = new FakeHypervisor({ log, config: { startVm: { vmId: 'vm-1', crashAfterMs: 1 } } });
  const crashed = Promise.withResolvers<VmObservation>();
  await fake.start((vm) => vm.state === 'CRASHED' && crashed.resolve(vm));
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  // The fake's own timer doesn't keep a process alive.
  const alive = setInterval(() => undefined, 1_000);
  assert.equal((await crashed.promise).reason, 'crashed as configured');
  clearInterval(alive);
  await fake.startVm(aSpec('vm-2'), 1, aRun());
  fake.crash('vm-2');
  fake.powerOff('vm-2');
  assert.equal(fake.observe().find(({ vmId }) => vmId === 'vm-2')?.state, 'CRASHED');
});

test('VMs outlive the daemon that has a file for them, and a start that was cut off is not taken for one that runs', async () => {
  const statePath = join(await temporaryFolder(), 'fake.json');
  const { fake: first } = await aFake({ startVm: { vmId: 'vm-2', hang: true } }, { statePath });
  await first.startVm(aSpec('vm-1'), 4, aRun());
  const abort = new AbortController();
  const starting = first.startVm(aSpec('vm-2'), 1, aRun(abort.signal));
  await first.controlVm('vm-1', 'PAUSE', aRun());

  const { fake: second } = await aFake({}, { statePath });
  assert.deepEqual(second.observe(), [
    { vmId: 'vm-1', state: 'PAUSED', epoch: 4, reason: null },
    { vmId: 'vm-2', state: 'STOPPED', epoch: 1, reason: 'its start was cut off' },
  ]);
  abort.abort(new Error('over'));
  await assert.rejects(starting, /over/);
  await first.close();
  await second.close();
});

test('A volume that was deleted can not be started from', async () => {
  const { fake } = await aFake();
  await fake.createVolume(VOLUME, null, aRun());
  assert.equal(fake.estate.volumes, 1);
  await fake.deleteVolume(VOLUME, aRun());
  assert.equal(fake.estate.volumes, 0);
  await assert.rejects(fake.startVm(aSpec('vm-1'), 1, aRun()), hasCode('NOT_FOUND'));
});

test('Images are as the configuration says, and refused when too large, changed or badly named', async () => {
  const { fake } = await aFake({ images: { 'a.img': { virtualBytes: 100, fileBytes: 50, sha256: 'aa' } } });
  const image = { fileName: 'a.img', format: 'RAW', maxVirtualBytes: 100 } as const;
  assert.deepEqual(await fake.inspectImage(image, aRun()), { virtualBytes: 100, fileBytes: 50, sha256: 'aa' });
  await assert.rejects(fake.inspectImage({ ...image, maxVirtualBytes: 99 }, aRun()), hasCode('IMAGE_REFUSED'));
  await assert.rejects(fake.inspectImage({ ...image, fileName: '../a.img' }, aRun()), hasCode('IMAGE_REFUSED'));
  await assert.rejects(fake.prepareTemplate({ fileName: 'a.img', sha256: 'bb' }, aRun()), hasCode('IMAGE_REFUSED'));
});

test('The serial log grows by whole lines, and any end of it is that of the whole', async () => {
  let time = 1_000_000;
  const { fake } = await aFake({}, { now: () => time });
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  const first = await fake.serialLog('vm-1', 1_000_000);
  assert.match(first.bytes.toString(), /^\[ {4}0\.000000\] Linux version .*\r\n$/);
  time += 60_000;
  const whole = await fake.serialLog('vm-1', 1_000_000);
  assert.equal(whole.offset, 0);
  assert.ok(whole.bytes.subarray(0, first.bytes.length).equals(first.bytes));
  assert.match(whole.bytes.toString(), /fake guest: alive, load 0\.\d\d\r\n$/);
  for (let last = 1; last < whole.bytes.length; last += 7) {
    const end = await fake.serialLog('vm-1', last);
    assert.equal(end.offset, whole.bytes.length - last);
    assert.ok(end.bytes.equals(whole.bytes.subarray(-last)), `the last ${last} bytes`);
  }
  time += 3_600_000;
  const later = await fake.serialLog('vm-1', 1_000_000);
  assert.ok(later.bytes.subarray(0, whole.bytes.length).equals(whole.bytes));
});

test('A watch of the serial log sends what is there and then each piece once', async () => {
  let time = 1_000_000;
  const { fake } = await aFake({}, { now: () => time });
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  time += 5_000;
  const abort = new AbortController();
  const pieces: { offset: number; bytes: Buffer }[] = [];
  const next = async (offset: number, bytes: Buffer): Promise<void> => {
    pieces.push({ offset, bytes });
    time += 10_000;
    if (pieces.length === 2) abort.abort();
  };
  await fake.watchSerial('vm-1', 10, next, abort.signal);
  assert.equal(pieces[0]?.bytes.length, 10);
  assert.equal(pieces[1]?.offset, pieces[0]!.offset + 10);
  await assert.rejects(fake.watchSerial('vm-9', 10, next, abort.signal), hasCode('NOT_FOUND'));
});

test('Usage is the same each time it is asked at the same moment, and grows', async () => {
  let time = 1_000_000;
  const { fake } = await aFake({}, { now: () => time });
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  time += 10_000;
  const one = await fake.usage();
  assert.deepEqual(await fake.usage(), one);
  time += 10_000;
  const two = await fake.usage();
  for (const counter of ['cpuNs', 'networkReceiveBytes', 'networkTransmitBytes'] as const) {
    assert.ok(two.vms[0]![counter]! > one.vms[0]![counter]!, counter);
  }
  assert.ok(one.cpuLoad > 0 && one.cpuLoad < 1);
  assert.equal(one.memoryUsedMib, 512);
});

test('The screen is a PNG of 320 by 200 that differs by VM', async () => {
  const { fake } = await aFake();
  await fake.startVm(aSpec('vm-1'), 1, aRun());
  await fake.startVm(aSpec('vm-2'), 1, aRun());
  const png = await fake.screenshot('vm-1');
  assert.equal(png.toString('latin1', 12, 16), 'IHDR');
  assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [320, 200]);
  const length = png.readUInt32BE(33);
  assert.equal(png.toString('latin1', 37, 41), 'IDAT');
  assert.equal(inflateSync(png.subarray(41, 41 + length)).length, (320 * 3 + 1) * 200);
  assert.ok(!png.equals(await fake.screenshot('vm-2')));
  await fake.stopVm('vm-1', 'FORCE', 0, aRun());
  await assert.rejects(fake.screenshot('vm-1'), hasCode('NOT_FOUND'));
});

test('A configuration that is wrong is refused with the place named', () => {
  const wrong = { startVm: { delay: 5 } } as unknown as FakeConfig;
  assert.throws(
    () => new FakeHypervisor({ log, config: wrong }),
    (error: Error) => error instanceof FakeConfigError && /startVm/.test(error.message),
  );
});
