import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { JournalError } from '../../hostd/append-log.ts';
import { Dispatcher, type DispatcherOptions } from '../../hostd/commands/dispatch.ts';
import { CLASS_SLOTS } from '../../hostd/commands/table.ts';
import { FakeHypervisor } from '../../hostd/fake/hypervisor.ts';
import type { Command, CommandReportInput, ProgressInput } from '../../hostd/generated/protocol.ts';
import { CommandError, type Run } from '../../hostd/hypervisor.ts';
import { FileJournal, MemoryJournal } from '../../hostd/journal.ts';
import { aCancel, aCommand, aStart } from './commands.ts';
import { temporaryFolder } from './temporary-folder.ts';

const log = pino({ level: 'silent' });

/** Remembers what is told; `answer` waits for a command's. */
class Told {
  readonly reports: CommandReportInput[] = [];
  readonly progressed: ProgressInput[] = [];
  readonly serial: string[] = [];
  watched = true;
  #wake = Promise.withResolvers<void>();

  report(report: CommandReportInput): void {
    this.reports.push(report);
    this.#wake.resolve();
  }

  progress(progress: ProgressInput): void {
    this.progressed.push(progress);
  }

  async sendSerial(_commandId: string, _offset: number, bytes: Buffer): Promise<boolean> {
    this.serial.push(bytes.toString());
    this.#wake.resolve();
    return this.watched;
  }

  async answer(commandId: string): Promise<CommandReportInput> {
    await this.until(() => this.reports.some((report) => report.commandId === commandId));
    return this.reports.find((report) => report.commandId === commandId)!;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      this.#wake = Promise.withResolvers();
      await this.#wake.promise;
    }
  }
}

/** A fake whose starts a test lets end, one by one. */
class HeldHypervisor extends FakeHypervisor {
  readonly started: string[] = [];
  readonly #holds = new Map<string, PromiseWithResolvers<void>>();
  #wake = Promise.withResolvers<void>();

  override async startVm({ vmId }: { vmId: string }, epoch: number, _run: Run): Promise<void> {
    const name = `${vmId}@${epoch}`;
    this.started.push(name);
    this.#wake.resolve();
    await this.#hold(name).promise;
  }

  override async stopVm(vmId: string): Promise<void> {
    this.started.push(`stop ${vmId}`);
    this.#wake.resolve();
  }

  letEnd(name: string, error?: Error): void {
    if (error) this.#hold(name).reject(error);
    else this.#hold(name).resolve();
  }

  async hasStarted(count: number): Promise<void> {
    while (this.started.length < count) {
      this.#wake = Promise.withResolvers();
      await this.#wake.promise;
    }
  }

  #hold(name: string): PromiseWithResolvers<void> {
    const hold = this.#holds.get(name) ?? Promise.withResolvers<void>();
    this.#holds.set(name, hold);
    return hold;
  }
}

function aDispatcher(t: TestContext, options: Partial<DispatcherOptions> = {}) {
  const told = new Told();
  const hypervisor = new HeldHypervisor({ log });
  const journal = new MemoryJournal();
  const dispatcher = new Dispatcher({ hypervisor, journal, uplink: told, log, ...options });
  t.after(() => dispatcher.close());
  return { told, hypervisor, journal, dispatcher };
}

test('A command that is delivered again, under way or done, acts once and is answered each time', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  const start = aStart('job.1', 'vm-1');
  dispatcher.receive([start, start]);
  await hypervisor.hasStarted(1);
  dispatcher.receive([start]);
  hypervisor.letEnd('vm-1@1');
  await told.answer('job.1');
  dispatcher.receive([start]);
  assert.deepEqual(told.reports, [{ commandId: 'job.1' }, { commandId: 'job.1' }]);
  assert.deepEqual(hypervisor.started, ['vm-1@1']);
});

test('A failure is remembered like a success', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  hypervisor.letEnd('vm-1@1', new CommandError('QEMU_FAILED', 'no such machine'));
  const start = aStart('job.1', 'vm-1');
  dispatcher.receive([start]);
  await told.answer('job.1');
  dispatcher.receive([start]);
  const answer = { commandId: 'job.1', error: { code: 'QEMU_FAILED', message: 'no such machine' } };
  assert.deepEqual(told.reports, [answer, answer]);
  assert.equal(hypervisor.started.length, 1);
});

test('An epoch that is lower than one seen is refused, also by the next process, but not of who only looks', async (t) => {
  const path = join(await temporaryFolder(), 'journal');
  const journal = await FileJournal.open(path, { log });
  const first = aDispatcher(t, { journal });
  first.hypervisor.letEnd('vm-1@5');
  first.dispatcher.receive([aStart('job.1', 'vm-1', 5)]);
  await first.told.answer('job.1');
  await journal.close();

  const reopened = await FileJournal.open(path, { log });
  const second = aDispatcher(t, { journal: reopened });
  second.dispatcher.receive([
    aStart('job.2', 'vm-1', 4),
    aCommand('ScreenshotRequest', 'shot', { epoch: 4 }),
    aStart('job.1', 'vm-1', 5),
    aStart('job.3', 'vm-2', 1),
  ]);
  assert.equal((await second.told.answer('job.2')).error?.code, 'STALE_EPOCH');
  assert.equal((await second.told.answer('shot')).error?.code, 'NOT_FOUND');
  assert.deepEqual(await second.told.answer('job.1'), { commandId: 'job.1' });
  await second.hypervisor.hasStarted(1);
  assert.deepEqual(second.hypervisor.started, ['vm-2@1']);
  second.hypervisor.letEnd('vm-2@1');
  await second.told.answer('job.3');
  await reopened.close();
});

test('Commands of one VM run in turn, those of others beside them', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  dispatcher.receive([aStart('job.1', 'vm-1'), aCommand('StopVmCommand', 'job.2'), aStart('job.3', 'vm-2')]);
  await hypervisor.hasStarted(2);
  assert.deepEqual(hypervisor.started, ['vm-1@1', 'vm-2@1']);
  hypervisor.letEnd('vm-2@1');
  await told.answer('job.3');
  assert.equal(told.reports.length, 1);
  hypervisor.letEnd('vm-1@1');
  await told.answer('job.2');
  assert.deepEqual(hypervisor.started, ['vm-1@1', 'vm-2@1', 'stop vm-1']);
  assert.deepEqual(
    told.reports.map(({ commandId }) => commandId),
    ['job.3', 'job.1', 'job.2'],
  );
});

test('The epoch is judged when a command has its turn, not when it arrives', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  dispatcher.receive([aStart('job.1', 'vm-1', 2), aStart('job.2', 'vm-1', 1)]);
  hypervisor.letEnd('vm-1@2');
  assert.equal((await told.answer('job.2')).error?.code, 'STALE_EPOCH');
});

test('No more than the bound run at once', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  const count = CLASS_SLOTS.quick + 10;
  dispatcher.receive(Array.from({ length: count }, (_, i) => aStart(`job.${i}`, `vm-${i}`)));
  await hypervisor.hasStarted(CLASS_SLOTS.quick);
  assert.equal(dispatcher.underway, count);
  for (let i = 0; i < count; i++) hypervisor.letEnd(`vm-${i}@1`);
  await told.until(() => told.reports.length === count);
  assert.equal(hypervisor.started.length, count);
});

test('A cancel ends a running command and takes a waiting one out of the queue', async (t) => {
  const hypervisor = new FakeHypervisor({ log, config: { startVm: { hang: true } } });
  const { told, dispatcher } = aDispatcher(t, { hypervisor });
  dispatcher.receive([aStart('job.1', 'vm-1', 1), aStart('job.2', 'vm-1', 2), aStart('job.3', 'vm-1', 3)]);
  dispatcher.receive([aCancel('job.2')]);
  assert.equal((await told.answer('job.2')).error?.code, 'CANCELLED');
  dispatcher.receive([aCancel('job.1'), aCancel('unknown')]);
  assert.equal((await told.answer('job.1')).error?.code, 'CANCELLED');
  dispatcher.receive([aCancel('job.3')]);
  await told.answer('job.3');
  dispatcher.receive([aStart('job.2', 'vm-1', 2)]);
  assert.equal(told.reports.at(-1)?.error?.code, 'CANCELLED', 'the answer stands');
  assert.deepEqual(hypervisor.observe(), []);
});

test('A command that takes too long is answered TIMEOUT', async (t) => {
  const hypervisor = new FakeHypervisor({ log, config: { startVm: { hang: true } } });
  const { told, dispatcher } = aDispatcher(t, { hypervisor });
  dispatcher.receive([{ ...aStart('job.1', 'vm-1'), timeoutMs: 20 }]);
  assert.deepEqual(await told.answer('job.1'), {
    commandId: 'job.1',
    error: { code: 'TIMEOUT', message: 'not done in 20 ms' },
  });
});

test('A command that ignores its end is answered after a grace, and keeps the next of its VM waiting', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t, { graceMs: 5 });
  dispatcher.receive([aStart('job.1', 'vm-1'), aCommand('StopVmCommand', 'job.2')]);
  await hypervisor.hasStarted(1);
  dispatcher.receive([aCancel('job.1')]);
  assert.equal((await told.answer('job.1')).error?.code, 'CANCELLED');
  assert.deepEqual(hypervisor.started, ['vm-1@1']);
  hypervisor.letEnd('vm-1@1');
  await told.answer('job.2');
  assert.deepEqual(hypervisor.started, ['vm-1@1', 'stop vm-1']);
});

test('A command that was cancelled but did its work all the same is done', async (t) => {
  const { told, hypervisor, dispatcher } = aDispatcher(t);
  dispatcher.receive([aStart('job.1', 'vm-1')]);
  await hypervisor.hasStarted(1);
  dispatcher.receive([aCancel('job.1')]);
  hypervisor.letEnd('vm-1@1');
  assert.deepEqual(await told.answer('job.1'), { commandId: 'job.1' });
});

test('A fault of the host itself is answered INTERNAL and told in full to the log alone', async (t) => {
  const lines: string[] = [];
  const watching = pino({ level: 'error' }, { write: (line: string) => lines.push(line) });
  const { told, hypervisor, dispatcher } = aDispatcher(t, { log: watching });
  hypervisor.letEnd('vm-1@1', new TypeError('secret path is undefined'));
  dispatcher.receive([aStart('job.1', 'vm-1')]);
  const { error } = await told.answer('job.1');
  assert.equal(error?.code, 'INTERNAL');
  assert.doesNotMatch(error?.message ?? '', /secret/);
  assert.match(lines.join(''), /secret path is undefined/);
});

test('A kind of command that this version does not know is answered, not dropped', async (t) => {
  const { told, dispatcher } = aDispatcher(t);
  dispatcher.receive([
    { __typename: 'MigrateVmCommand', commandId: 'job.1', epoch: 0, timeoutMs: 1 } as never as Command,
  ]);
  const { error } = await told.answer('job.1');
  assert.equal(error?.code, 'INTERNAL');
  assert.match(error?.message ?? '', /MigrateVmCommand/);
});

test('A size that no file has is refused before anything is done', async (t) => {
  const { told, dispatcher } = aDispatcher(t);
  dispatcher.receive([aCommand('InspectImageCommand', 'job.1', { maxVirtualBytes: '99999999999999999999' })]);
  assert.equal((await told.answer('job.1')).error?.code, 'INTERNAL');
});

test('Without a durable intent nothing is done, without a durable outcome nothing is told', async (t) => {
  const full = new JournalError('full', { cause: Object.assign(new Error('full'), { code: 'ENOSPC' }) });
  const journal = new MemoryJournal();
  const { told, hypervisor, dispatcher } = aDispatcher(t, { journal });
  const begin = t.mock.method(journal, 'begin', () => Promise.reject(full));
  const finish = t.mock.method(journal, 'finish', () => Promise.reject(full));
  dispatcher.receive([aStart('job.1', 'vm-1')]);
  await idle(dispatcher);
  assert.deepEqual([hypervisor.started, told.reports], [[], []]);

  finish.mock.restore();
  dispatcher.receive([aStart('job.2', 'vm-1')]);
  assert.equal((await told.answer('job.2')).error?.code, 'DISK_FULL');
  assert.deepEqual(hypervisor.started, []);

  begin.mock.restore();
  const failing = t.mock.method(journal, 'finish', () => Promise.reject(full));
  hypervisor.letEnd('vm-1@1');
  dispatcher.receive([aStart('job.3', 'vm-1')]);
  await idle(dispatcher);
  assert.equal(hypervisor.started.length, 1);
  assert.equal(told.reports.length, 1);
  failing.mock.restore();
  dispatcher.receive([aStart('job.3', 'vm-1')]);
  assert.deepEqual(await told.answer('job.3'), { commandId: 'job.3' });
  assert.equal(hypervisor.started.length, 2, 'asked again, it is done again: its effect is found');
});

test('A daemon that ends tells nothing of what it cut off', async (t) => {
  const hypervisor = new FakeHypervisor({ log, config: { startVm: { hang: true } } });
  const journal = new MemoryJournal();
  const { told, dispatcher } = aDispatcher(t, { hypervisor, journal });
  dispatcher.receive([aStart('job.1', 'vm-1'), aStart('job.2', 'vm-1')]);
  await dispatcher.close();
  dispatcher.receive([aStart('job.3', 'vm-1')]);
  assert.equal(dispatcher.underway, 0);
  assert.deepEqual(told.reports, []);
  assert.equal(journal.outcome('job.1'), undefined);
});

test('Pictures and serial logs are answered in base64 and not remembered', async (t) => {
  const hypervisor = new FakeHypervisor({ log });
  const journal = new MemoryJournal();
  const { told, dispatcher } = aDispatcher(t, { hypervisor, journal });
  dispatcher.receive([aStart('job.1', 'vm-1')]);
  await told.answer('job.1');
  dispatcher.receive([aCommand('ScreenshotRequest', 'shot'), aCommand('SerialLogRequest', 'log')]);
  const shot = Buffer.from((await told.answer('shot')).result?.base64 ?? '', 'base64');
  assert.equal(shot.subarray(1, 4).toString(), 'PNG');
  assert.match(Buffer.from((await told.answer('log')).result?.base64 ?? '', 'base64').toString(), /Linux version/);
  assert.equal(journal.outcome('shot'), undefined);
  assert.equal(journal.outcome('log'), undefined);
});

async function idle(dispatcher: Dispatcher): Promise<void> {
  while (dispatcher.underway > 0) await new Promise((resolve) => setImmediate(resolve));
}
