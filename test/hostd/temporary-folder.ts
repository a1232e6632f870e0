import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

const made: string[] = [];

// After all tests: hooks of a test run in the order of their making, and whoever uses the folder must let go first.
after(() => Promise.all(made.map((path) => rm(path, { recursive: true, force: true }))));

/** A folder of the test's own, gone when its file is done. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'virtgraph-hostd-'));
  made.push(path);
  return path;
}
