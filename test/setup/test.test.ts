import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';

const PROGRAM = resolve(import.meta.dirname, '../../setup/test.ts');
const TESTS = `import { test } from 'node:test';
test('one of those', { only: true }, () => console.log(process.env.DATABASE_URL));
test('another of those', () => console.log('another ran'));
`;

describe('npm test', () => {
  let folder: string;
  let file: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vgn-'));
    file = join(folder, 'those.test.mjs');
    await writeFile(file, TESTS);
  });
  after(() => rm(folder, { recursive: true }));

  /** On a server that isn't there, for these tests need none. */
  function run(args: string[], databaseUrl = 'mysql://nobody@localhost/nothing') {
    // Node runs no tests below a test, unless it doesn't know.
    const { NODE_TEST_CONTEXT: _, ...rest } = process.env;
    const env = { ...rest, TEST_DATABASE_URL: databaseUrl };
    return new Promise<{ code: number; out: string; error: string }>((done) => {
      execFile(process.execPath, [PROGRAM, ...args], { env }, (failure, out, error) => {
        done({ code: Number(failure?.code ?? 0), out, error });
      });
    });
  }

  test('has a help of its own', async () => {
    const { code, out, error } = await run(['--help']);
    assert.deepEqual({ code, error }, { code: 0, error: '' });
    assert.match(out, /^Usage: npm test -- \[FILE …\] \[options\]\n/);
    assert.match(out, /TEST_DATABASE_URL/);
  });

  test('refuses what it does not know before it runs anything', async () => {
    const unknown = await run([file, '--watch']);
    assert.deepEqual([unknown.code, unknown.out], [2, '']);
    assert.match(unknown.error, /^Unknown option '--watch'.*\n\nUsage: npm test/);

    const postgres = await run([file], 'postgres://root:secret@localhost/x');
    assert.deepEqual([postgres.code, postgres.out], [2, '']);
    assert.match(postgres.error, /^TEST_DATABASE_URL is not the URL of a MariaDB or MySQL: .*\n\nUsage: npm test/);
    assert.ok(!postgres.error.includes('secret'));
  });

  test('runs the files that are named, on the server that is given', async () => {
    const { code, out } = await run([file]);
    assert.equal(code, 0);
    assert.match(out, /mysql:\/\/nobody@localhost\/nothing/);
    assert.match(out, /another ran/);
  });

  test('runs only the tests that its options choose', async () => {
    for (const option of ['--test-only', '--test-name-pattern=^another']) {
      const { code, out } = await run([option, file]);
      assert.equal(code, 0, option);
      assert.equal(/another ran/.test(out), option !== '--test-only', option);
      assert.equal(/mysql:\/\/nobody/.test(out), option === '--test-only', option);
    }
  });
});
