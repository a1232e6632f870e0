import assert from 'node:assert/strict';
import { appendFile, chown, link, open, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { defaultQemuUser } from '../../hostd/qemu/confine.ts';
import { readSerialLog, trimLog, watchSerialLog } from '../../hostd/qemu/serial.ts';
import { hasCode } from './qemu-host.ts';
import { temporaryFolder } from './temporary-folder.ts';

const MIB = 2 ** 20;

async function aLog(text: string | Buffer): Promise<string> {
  const path = join(await temporaryFolder(), 'serial.log');
  await writeFile(path, text);
  return path;
}

test('The end of a log comes with its offset, at most a mebibyte of it', async () => {
  const path = await aLog('0123456789');
  assert.deepEqual(await readSerialLog(path, 4), { offset: 6, bytes: Buffer.from('6789') });
  assert.deepEqual(await readSerialLog(path, 100), { offset: 0, bytes: Buffer.from('0123456789') });
  assert.deepEqual(await readSerialLog(path, 0), { offset: 10, bytes: Buffer.alloc(0) });
  await writeFile(path, Buffer.alloc(2 * MIB));
  const { offset, bytes } = await readSerialLog(path, 2 * MIB);
  assert.deepEqual([offset, bytes.length], [MIB, MIB]);
});

test('A log that is not there, and a link in its place, are not read', async () => {
  const folder = await temporaryFolder();
  await assert.rejects(readSerialLog(join(folder, 'none'), 1), hasCode('NOT_FOUND'));
  await assert.rejects(
    watchSerialLog(join(folder, 'none'), 1, async () => undefined, new AbortController().signal),
    hasCode('NOT_FOUND'),
  );
  await symlink('/etc/passwd', join(folder, 'symbolic'));
  await assert.rejects(readSerialLog(join(folder, 'symbolic'), 1), { code: 'ELOOP' });
  await writeFile(join(folder, 'secret'), 'secret');
  await link(join(folder, 'secret'), join(folder, 'hard'));
  await assert.rejects(readSerialLog(join(folder, 'hard'), 1), /not what QEMU writes/);
});

test('Whoever watches a log gets its end and then, piece after piece, all that follows', async () => {
  const path = await aLog('old and new');
  const enough = new AbortController();
  const pieces: [number, string][] = [];
  let underway = 0;
  await watchSerialLog(
    path,
    3,
    async (offset, bytes) => {
      assert.equal(++underway, 1, 'a piece came before the last one was taken');
      pieces.push([offset, bytes.toString()]);
      if (pieces.length === 1) await appendFile(path, ' more');
      if (pieces.length === 2) setImmediate(() => void appendFile(path, ' at last'));
      if (pieces.length === 3) enough.abort();
      underway--;
    },
    enough.signal,
  );
  assert.deepEqual(pieces, [
    [8, 'new'],
    [11, ' more'],
    [16, ' at last'],
  ]);
});

test('Watching ends when it is aborted, when the reader fails, and when the log goes', async () => {
  const path = await aLog('text');
  const abort = new AbortController();
  const quiet = watchSerialLog(path, 0, async () => assert.fail('nothing was written'), abort.signal);
  abort.abort();
  await quiet;

  const broken = watchSerialLog(path, 4, () => Promise.reject(new Error('link lost')), new AbortController().signal);
  await assert.rejects(broken, /link lost/);

  const gone = watchSerialLog(path, 4, () => rm(path), new AbortController().signal);
  await assert.rejects(gone, hasCode('NOT_FOUND'));
});

test('A log that has grown large gives its beginning back and keeps its offsets', async (t) => {
  const path = await aLog(Buffer.alloc(20 * MIB, 'x'));
  const user = defaultQemuUser();
  if (user) await chown(path, user.uid, user.gid);
  await appendFile(path, 'end');
  const handle = await open(path, 'r+');
  await handle.sync();
  await handle.close();
  try {
    await trimLog(path, user);
  } catch (error) {
    return t.skip(`this file system can't: ${(error as Error).message}`);
  }
  const { size, blocks } = await stat(path);
  assert.equal(size, 20 * MIB + 3);
  assert.ok(blocks * 512 <= 5 * MIB, `${blocks * 512} bytes`);
  assert.equal((await readSerialLog(path, 4)).bytes.toString(), 'xend');
  await trimLog(path, user);
  await trimLog(join(path, '..', 'none'), user);
});
