import { createHash } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { createServer } from 'node:net';

/** Another host daemon uses the folder. */
export class DataFolderInUse extends Error {
  override readonly name = 'DataFolderInUse';
}

/**
 * Makes the folder, for its owner alone, and holds it: two daemons that adopt the same VMs would each undo the other.
 * The lock is a socket in Linux's abstract namespace, which the kernel takes down with its process, however that ends.
 *
 * @returns what lets go of the folder. Throws `DataFolderInUse`
 */
export async function holdDataFolder(path: string): Promise<() => Promise<void>> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const name = createHash('sha256')
    .update(await realpath(path))
    .digest('hex');
  const lock = createServer().unref();
  await new Promise<void>((resolve, reject) => {
    lock.once('listening', resolve);
    lock.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'EADDRINUSE' ? new DataFolderInUse(`${path} is used by another host daemon`) : error),
    );
    lock.listen(`\0virtgraph-hostd-${name}`);
  });
  return () => new Promise((resolve, reject) => lock.close((error) => (error ? reject(error) : resolve())));
}
