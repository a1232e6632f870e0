import { randomUUID } from 'node:crypto';
import { link, open, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * The text of a file that its owner alone may read, made if there is none. Two processes that make it at once have the
 * same afterwards; and it is on the disk before anything is: what rests on it may outlive this machine's power.
 */
export async function readOrMakeSecret(path: string, make: () => string): Promise<string> {
  const before = await readText(path);
  if (before !== null) return before;
  const temporary = `${path}.${randomUUID()}`;
  try {
    await writeDurably(temporary, `${make()}\n`);
    await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { force: true });
  }
  const folder = await open(dirname(path));
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
  return (await readText(path))!;
}

async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function readText(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
