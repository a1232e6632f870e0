import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mustBeKeyOf, readSealingKey, SealBroken, Sealer, SealingKeyError } from '../../src/db/sealer.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

describe('sealed secrets', () => {
  const sealer = new Sealer(randomBytes(32));

  it('open by the same key for the same purpose alone', () => {
    const sealed = sealer.seal('a secret', 'totp 1');
    assert.equal(sealer.open(sealed, 'totp 1').toString(), 'a secret');
    assert.throws(() => sealer.open(sealed, 'totp 2'), SealBroken);
    assert.throws(() => new Sealer(randomBytes(32)).open(sealed, 'totp 1'), SealBroken);
  });

  it('hold nothing that can be read, and are never twice the same', () => {
    const [one, other] = [sealer.seal('a secret', 'x'), sealer.seal('a secret', 'x')];
    assert.ok(!one.includes('a secret'));
    assert.ok(!one.equals(other));
  });

  it('do not open when any one byte was changed, or the end is missing', () => {
    const sealed = sealer.seal('a secret', 'x');
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed);
      changed[at]! ^= 1;
      assert.throws(() => sealer.open(changed, 'x'), SealBroken, `byte ${at}`);
      assert.throws(() => sealer.open(sealed.subarray(0, at), 'x'), SealBroken, `${at} bytes`);
    }
  });
});

describe('the sealing key', () => {
  let folder: string;
  let database: TestDatabase;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealing-'));
    database = await freshDatabase();
  });
  after(async () => {
    await database.close();
    await rm(folder, { recursive: true });
  });

  it('is made once, for its owner alone, however many ask at once', async () => {
    const path = join(folder, 'key');
    const [first, ...others] = await Promise.all(Array.from({ length: 8 }, () => readSealingKey(path)));
    for (const key of others) assert.ok(key.equals(first!));
    assert.ok((await readSealingKey(path)).equals(first!));
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(folder), ['key']);
  });

  it('is refused when the file holds something else, which stays as it is', async () => {
    const path = join(folder, 'other');
    await writeFile(path, 'hello\n');
    await assert.rejects(readSealingKey(path), SealingKeyError);
    assert.equal(await readFile(path, 'utf8'), 'hello\n');
  });

  it('must be the one that the database was begun with', async () => {
    const sealer = new Sealer(randomBytes(32));
    await mustBeKeyOf(database.db, sealer);
    await mustBeKeyOf(database.db, sealer);
    await assert.rejects(mustBeKeyOf(database.db, new Sealer(randomBytes(32))), SealingKeyError);
    await mustBeKeyOf(database.db, sealer);
  });
});
