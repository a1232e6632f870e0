import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { type Connection, createConnection } from 'mysql2/promise';
import { untilFolderYields } from './folder-watch.ts';
import { childEnd, type ProcessIdentity, ProcessRecords, stopProcess, untilEnded } from './process-record.ts';

const run = promisify(execFile);
const DATABASE = 'virtgraph';
/** Recovery of a large log after a crash is what takes long. */
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
/** `sun_path` holds 108 bytes with the NUL at its end. */
const SOCKET_PATH_BYTES = 107;

/** The server takes root's data only when it is told so; anyone else's is its own. */
const SERVER_USER = process.getuid!() === 0 ? ['--user=root'] : [];

/** A private MariaDB that listens on nothing but a socket in a folder of its user's own. */
export interface MariaDb {
  /** For `DATABASE_URL`. The database exists. */
  url: string;
  socketPath: string;
  pid: number;
  logPath: string;
  /** Resolves when the server has ended, for whatever reason, and says how. */
  ended: Promise<string>;
  /** Shuts it down cleanly and waits for the end of the process. May be called twice. */
  stop(): Promise<void>;
}

/**
 * Starts MariaDB on the data in `folder`, which is created and initialised where needed; one that runs there already
 * is taken over. Data that a killed server left is recovered by InnoDB. Rejects with the end of the server's log.
 */
export async function startMariaDb(folder: string): Promise<MariaDb> {
  const home = resolve(folder);
  await mkdir(home, { recursive: true, mode: 0o700 });
  const dataFolder = join(home, 'data');
  const logPath = join(home, 'mariadb.log');
  const socketPath = await socketPathFor(home);
  const records = new ProcessRecords(home);

  const running = await records.running('process');
  if (!running) await initialise(dataFolder);
  const { server, ended } = running
    ? { server: running, ended: untilEnded(running, { ref: false }).then(() => 'ended') }
    : await launch({ home, dataFolder, logPath, socketPath, records });
  try {
    const connection = await firstConnection(home, socketPath, ended);
    await connection.query(`CREATE DATABASE IF NOT EXISTS ${DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
    await connection.end();
  } catch (error) {
    await stopProcess(server, STOP_TIMEOUT_MS);
    throw new Error(`MariaDB did not start.\n${await lastLines(logPath)}`, { cause: error });
  }
  return {
    url: `mysql://root@localhost/${DATABASE}?socket=${encodeURIComponent(socketPath)}`,
    socketPath,
    pid: server.pid,
    logPath,
    ended,
    async stop() {
      await stopProcess(server, STOP_TIMEOUT_MS);
      await records.remove('process');
      if (dirname(socketPath) !== home) await rm(dirname(socketPath), { recursive: true, force: true });
    },
  };
}

/** The server that runs on the data in `folder`, for whoever wants to stop it. */
export function runningMariaDb(folder: string): Promise<ProcessIdentity | null> {
  return new ProcessRecords(resolve(folder)).running('process');
}

/** Beside the data, or in a short folder of this user alone where that path is too long for a socket. */
async function socketPathFor(home: string): Promise<string> {
  const beside = join(home, 'mariadb.sock');
  if (Buffer.byteLength(beside) <= SOCKET_PATH_BYTES) return beside;
  const uid = process.getuid!();
  const short = join(tmpdir(), `virtgraph-${uid}-${createHash('sha256').update(home).digest('hex').slice(0, 12)}`);
  await mkdir(short, { recursive: true, mode: 0o700 });
  const facts = await stat(short);
  // Anyone may create a folder of this name in a shared one, and would own the socket then.
  if (facts.uid !== uid || (facts.mode & 0o077) !== 0) throw new Error(`${short} belongs to somebody else`);
  return join(short, 'mariadb.sock');
}

async function initialise(dataFolder: string): Promise<void> {
  if (await exists(dataFolder)) return;
  // Renamed when it is complete, so that what an interrupted initialisation leaves is never taken for a database.
  const unfinished = `${dataFolder}.new`;
  await rm(unfinished, { recursive: true, force: true });
  const temporary = await temporaryFolder(dirname(dataFolder));
  await run('mariadb-install-db', [
    ...['--no-defaults', `--datadir=${unfinished}`, `--tmpdir=${temporary}`, ...SERVER_USER, '--skip-test-db'],
    // The folder's mode is the lock: whoever can reach the socket may be root of this database.
    ...['--skip-name-resolve', '--auth-root-authentication-method=normal'],
  ]);
  await rename(unfinished, dataFolder);
}

/** A server that starts removes what it takes for its own leftovers, also those of another that runs: no two share one. */
async function temporaryFolder(home: string): Promise<string> {
  const folder = join(home, 'tmp');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return folder;
}

interface Launched {
  server: ProcessIdentity;
  ended: Promise<string>;
}

interface Launch {
  home: string;
  dataFolder: string;
  logPath: string;
  socketPath: string;
  records: ProcessRecords;
}

async function launch({ home, dataFolder, logPath, socketPath, records }: Launch): Promise<Launched> {
  await mkdir(join(home, 'exchange'), { recursive: true, mode: 0o700 });
  const log = await open(logPath, 'a', 0o600);
  const temporary = await temporaryFolder(home);
  const server = spawn(
    'mariadbd',
    [
      ...['--no-defaults', `--datadir=${dataFolder}`, `--tmpdir=${temporary}`],
      ...[`--socket=${socketPath}`, `--pid-file=${home}/mariadb.pid`],
      // The data belongs to whoever starts it. As root it may read and write files in this one folder alone.
      ...[...SERVER_USER, `--secure-file-priv=${home}/exchange`, '--local-infile=0'],
      ...['--skip-networking', '--skip-name-resolve', '--max-connections=500', '--max-allowed-packet=64M'],
      ...['--transaction-isolation=READ-COMMITTED', '--character-set-server=utf8mb4'],
      ...['--collation-server=utf8mb4_bin', '--performance-schema=OFF'],
      ...['--innodb-flush-log-at-trx-commit=1', '--innodb-autoinc-lock-mode=2', '--innodb-buffer-pool-size=128M'],
    ],
    // A session of its own: Ctrl-C at the terminal must not end the database before those who still use it.
    { detached: true, stdio: ['ignore', log.fd, log.fd] },
  );
  const ended = childEnd(server);
  await once(server, 'spawn');
  await log.close();
  return { server: await records.put('process', server.pid!), ended };
}

/** Resolves with a connection as soon as the server takes one: each line of its log is a reason to try. */
async function firstConnection(home: string, socketPath: string, ended: Promise<unknown>): Promise<Connection> {
  const gone = new AbortController();
  ended.then(() => gone.abort(new Error('the server ended')));
  const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(START_TIMEOUT_MS)]);
  return untilFolderYields(home, signal, async () => {
    try {
      return await createConnection({ socketPath, user: 'root', connectTimeout: 5_000 });
    } catch (error) {
      // Not there yet, or left behind by a server that was killed.
      if (['ENOENT', 'ECONNREFUSED'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw error;
    }
  });
}

async function lastLines(path: string): Promise<string> {
  const text = (await exists(path)) ? await readFile(path, 'utf8') : '';
  return text.trimEnd().split('\n').slice(-15).join('\n');
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
