import { Kysely, MysqlDialect } from 'kysely';
import { createPool, type Pool, type PoolOptions } from 'mysql2';
import type { Database } from './tables.ts';

/** How long a statement or a connect may take before the caller gets UNAVAILABLE. */
const CONNECT_TIMEOUT_MS = 3_000;

/**
 * A pool whose sessions run at READ COMMITTED in UTC: no gap locks, so inserts of two writers never wait for each other.
 *
 * @param url `mysql://user:password@host:port/database`, or `…?socket=/path` for a unix socket
 */
export function openPool(url: string, options: { connections: number; multipleStatements?: boolean }): Pool {
  const pool = createPool({
    ...connectionOptions(url),
    connectionLimit: options.connections,
    multipleStatements: options.multipleStatements ?? false,
    connectTimeout: CONNECT_TIMEOUT_MS,
    timezone: 'Z',
    supportBigNumbers: true,
    charset: 'utf8mb4',
    // Without it MariaDB's JSON columns arrive parsed: an object where the code that wrote a string expects a string.
    jsonStrings: true,
  });
  // Queued before the borrower's first statement on the same connection, so no borrower can overtake it.
  pool.on('connection', (connection) => {
    connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    connection.query("SET time_zone = '+00:00', innodb_lock_wait_timeout = 3");
  });
  return pool;
}

/** Kysely over a pool: reads, and whatever is not on a hot path. */
export const openDatabase = (pool: Pool): Kysely<Database> =>
  new Kysely<Database>({ dialect: new MysqlDialect({ pool }) });

function connectionOptions(url: string): PoolOptions {
  const { username, password, hostname, port, pathname, searchParams } = new URL(url);
  const socketPath = searchParams.get('socket');
  const where = socketPath ? { socketPath } : { host: hostname, port: Number(port || 3306) };
  return {
    ...where,
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: decodeURIComponent(pathname.slice(1)),
  };
}
