import assert from 'node:assert/strict';
import { appendFile, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { type AppendFile, JournalError } from '../../hostd/append-log.ts';
import { FileJournal, type FileJournalOptions } from '../../hostd/journal.ts';
import { temporaryFolder } from './temporary-folder.ts';

const log = pino({ level: 'silent' });

async function aPath(): Promise<string> {
  return join(await temporaryFolder(), 'journal');
}

/** Opens real files whose calls a test may watch or fail. */
function watchedFiles(hooks: { afterSync?: () => Promise<void>; beforeWrite?: () => void; beforeSync?: () => void }) {
  const counts = { syncs: 0, writes: 0 };
  const openFile: NonNullable<FileJournalOptions['openFile']> = async (path, flags) => {
    const file = await open(path, flags);
    return {
      async write(bytes, offset, length, position) {
        counts.writes++;
        hooks.beforeWrite?.();
        return file.write(bytes, offset, length, position);
      },
      async datasync() {
        hooks.beforeSync?.();
        await file.datasync();
        counts.syncs++;
        await hooks.afterSync?.();
      },
      truncate: (length) => file.truncate(length),
      close: () => file.close(),
    } satisfies AppendFile;
  };
  return { openFile, counts };
}

function enospc(): never {
  throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
}

test('What was promised before a crash after any fsync is there after it', async () => {
  const path = await aPath();
  const crashes: { bytes: Buffer; results: string[]; epoch: number }[] = [];
  const promised = { results: [] as string[], epoch: 0 };
  const { openFile } = watchedFiles({
    afterSync: async () => {
      crashes.push({ bytes: await readFile(path), results: [...promised.results], epoch: promised.epoch });
    },
  });
  const journal = await FileJournal.open(path, { log, openFile });
  for (let i = 1; i <= 20; i++) {
    await journal.begin({ commandId: `job.${i}`, kind: 'StartVmCommand', vmId: 'vm', epoch: i });
    promised.epoch = i;
    await journal.finish(`job.${i}`, { result: { virtualBytes: String(i) } });
    promised.results.push(`job.${i}`);
  }
  await journal.close();
  assert.equal(crashes.length, 41);
  for (const { bytes, results, epoch } of crashes) {
    const crashed = await aPath();
    await writeFile(crashed, bytes);
    const found = await FileJournal.open(crashed, { log });
    for (const id of results) assert.deepEqual(found.outcome(id), { result: { virtualBytes: id.slice(4) } });
    assert.ok(found.epochOf('vm') >= epoch);
    await found.close();
  }
});

test('A file torn at any byte keeps every whole line and can be written on', async () => {
  const path = await aPath();
  const journal = await FileJournal.open(path, { log });
  await journal.begin({ commandId: 'job.1', kind: 'StartVmCommand', vmId: 'vm', epoch: 4 });
  await journal.finish('job.1', { error: { code: 'QEMU_FAILED', message: 'größer als ein Byte je Zeichen' } });
  await journal.finish('job.2', {});
  await journal.close();
  const whole = await readFile(path);
  const lineEnds = [...whole.entries()].filter(([, byte]) => byte === 0x0a).map(([index]) => index + 1);
  const torn = await aPath();
  for (let length = 0; length <= whole.length; length++) {
    await writeFile(torn, whole.subarray(0, length));
    const first = await FileJournal.open(torn, { log });
    const lines = lineEnds.filter((end) => end <= length).length;
    assert.equal(first.epochOf('vm'), lines >= 2 ? 4 : 0, `epoch at byte ${length}`);
    assert.equal(first.outcome('job.1')?.error?.code, lines >= 3 ? 'QEMU_FAILED' : undefined, `job.1 at ${length}`);
    assert.equal(first.outcome('job.2') !== undefined, lines >= 4, `job.2 at byte ${length}`);
    await first.finish('job.3', { result: { sha256: 'after' } });
    await first.close();
    const second = await FileJournal.open(torn, { log });
    assert.equal(second.outcome('job.3')?.result?.sha256, 'after', `job.3 at byte ${length}`);
    assert.equal(second.epochOf('vm'), lines >= 2 ? 4 : 0);
    await second.close();
  }
});

test('A line that went bad does not take those after it along', async () => {
  const path = await aPath();
  const journal = await FileJournal.open(path, { log });
  await journal.finish('job.1', {});
  await journal.begin({ commandId: 'job.2', kind: 'StartVmCommand', vmId: 'vm', epoch: 9 });
  await journal.close();
  const bytes = await readFile(path);
  bytes[bytes.indexOf('job.1')] = 0x58;
  await writeFile(path, bytes);
  const found = await FileJournal.open(path, { log });
  assert.equal(found.outcome('job.1'), undefined);
  assert.equal(found.epochOf('vm'), 9);
  await found.close();
});

test('A journal of a later format is not touched', async () => {
  const path = await aPath();
  await (await FileJournal.open(path, { log })).close();
  const text = await readFile(path, 'utf8');
  const { crc32 } = await import('node:zlib');
  const json = '{"journal":2}';
  await writeFile(path, `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`);
  await assert.rejects(FileJournal.open(path, { log }), JournalError);
  assert.notEqual(await readFile(path, 'utf8'), text);
});

test('A thousand commands at once share a few fsyncs', async () => {
  const { openFile, counts } = watchedFiles({});
  const journal = await FileJournal.open(await aPath(), { log, openFile });
  const before = counts.syncs;
  await Promise.all(
    Array.from({ length: 1_000 }, async (_, i) => {
      await journal.begin({ commandId: `job.${i}`, kind: 'StartVmCommand', vmId: `vm-${i}`, epoch: 1 });
      await journal.finish(`job.${i}`, {});
    }),
  );
  assert.ok(counts.syncs - before <= 4, `${counts.syncs - before} fsyncs`);
  await journal.close();
});

test('A full disk refuses what does not fit, and the journal goes on when there is space again', async () => {
  const path = await aPath();
  let full = false;
  const { openFile } = watchedFiles({ beforeWrite: () => full && enospc() });
  const journal = await FileJournal.open(path, { log, openFile });
  await journal.finish('job.1', {});
  full = true;
  await assert.rejects(
    journal.finish('job.2', {}),
    (error: JournalError) => error instanceof JournalError && (error.cause as { code: string }).code === 'ENOSPC',
  );
  assert.equal(journal.outcome('job.2'), undefined);
  full = false;
  await journal.finish('job.3', {});
  await journal.close();
  const found = await FileJournal.open(path, { log });
  assert.deepEqual([found.outcome('job.1'), found.outcome('job.2'), found.outcome('job.3')], [{}, undefined, {}]);
  await found.close();
});

test('After a failed fsync nothing is promised any more', async () => {
  let fail = false;
  const { openFile } = watchedFiles({
    beforeSync: () => {
      if (fail) throw new Error('EIO');
    },
  });
  const journal = await FileJournal.open(await aPath(), { log, openFile });
  fail = true;
  await assert.rejects(journal.finish('job.1', {}), JournalError);
  fail = false;
  await assert.rejects(journal.finish('job.2', {}), JournalError);
  await assert.rejects(journal.begin({ commandId: 'job.3', kind: 'x', vmId: null, epoch: 0 }), JournalError);
  await journal.close();
});

test('A journal that grows is rewritten with what is kept: all epochs, and the outcomes that still count', async () => {
  const path = await aPath();
  let time = 0;
  const options = {
    log,
    retention: { outcomes: 10, ms: 1_000, atMost: 1_000 },
    compactBytes: 4_096,
    now: () => time,
  };
  const journal = await FileJournal.open(path, options);
  for (let i = 0; i < 500; i++) {
    time = i * 100;
    await journal.begin({ commandId: `job.${i}`, kind: 'StartVmCommand', vmId: `vm-${i % 50}`, epoch: i });
    await journal.finish(`job.${i}`, {});
  }
  await journal.close();
  assert.ok((await stat(path)).size < 12_000, `${(await stat(path)).size} bytes`);
  const found = await FileJournal.open(path, options);
  for (let i = 450; i < 500; i++) assert.equal(found.epochOf(`vm-${i % 50}`), i);
  for (let i = 490; i < 500; i++) assert.deepEqual(found.outcome(`job.${i}`), {});
  assert.equal(found.outcome('job.480'), undefined);
  await found.close();
});

test('Outcomes younger than the limit of age are kept beyond the limit of number, up to a hard one', async () => {
  const retention = { outcomes: 2, ms: 1_000, atMost: 5 };
  const journal = await FileJournal.open(await aPath(), { log, retention, now: () => 0 });
  for (let i = 0; i < 8; i++) await journal.finish(`job.${i}`, {});
  const kept = Array.from({ length: 8 }, (_, i) => `job.${i}`).filter((id) => journal.outcome(id));
  assert.deepEqual(kept, ['job.3', 'job.4', 'job.5', 'job.6', 'job.7']);
  await journal.close();
});

test('A rewrite that fails leaves the journal as it was and in use', async () => {
  const path = await aPath();
  const openFile: NonNullable<FileJournalOptions['openFile']> = async (file, flags) =>
    file.endsWith('.new') ? enospc() : open(file, flags);
  const journal = await FileJournal.open(path, { log, openFile, compactBytes: 512 });
  for (let i = 0; i < 50; i++) await journal.finish(`job.${i}`, {});
  await journal.close();
  const found = await FileJournal.open(path, { log });
  for (let i = 0; i < 50; i++) assert.deepEqual(found.outcome(`job.${i}`), {});
  await found.close();
});

test('A rewrite that a crash cut off is not taken for the journal', async () => {
  const path = await aPath();
  const journal = await FileJournal.open(path, { log });
  await journal.finish('job.1', {});
  await journal.close();
  await appendFile(`${path}.new`, 'half a rewr');
  const found = await FileJournal.open(path, { log, compactBytes: 100 });
  for (let i = 0; i < 20; i++) await found.finish('job.2', {});
  await found.close();
  const again = await FileJournal.open(path, { log });
  assert.deepEqual([again.outcome('job.1'), again.outcome('job.2')], [{}, {}]);
  await again.close();
  assert.deepEqual(await readdir(join(path, '..')), ['journal']);
});

test('The epoch of a VM that was found running is kept, and a lower one changes nothing', async () => {
  const path = await aPath();
  const journal = await FileJournal.open(path, { log });
  await journal.adopt('vm', 5);
  await journal.adopt('vm', 3);
  await journal.close();
  await journal.close();
  const found = await FileJournal.open(path, { log });
  assert.equal(found.epochOf('vm'), 5);
  assert.equal(found.epochOf('another'), 0);
  await found.close();
  await assert.rejects(found.finish('job.1', {}), JournalError);
});
