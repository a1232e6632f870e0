import { Kysely, MysqlDialect, type MysqlPool, type MysqlPoolConnection, sql, type Transaction } from 'kysely';
import { createPool, type Pool, type PoolConnection, type PoolOptions } from 'mysql2';
import { isTimeout, timedOut } from './failure.ts';
import type { Database } from './tables.ts';

/** How long a statement or a connect may take before the caller gets UNAVAILABLE. */
const CONNECT_TIMEOUT_MS = 2_000;

/**
 * A process that is stopped in the middle of a transaction holds its locks, and everyone else waits. Between these two
 * the server gives up a session that has said nothing for three seconds, and with it its transaction: the one setting
 * for this that MariaDB and MySQL share.
 */
export const LOCKS_BEGIN = 'SET wait_timeout = 3';
export const LOCKS_END = 'SET wait_timeout = DEFAULT';

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
    dateStrings: true,
    supportBigNumbers: true,
    charset: 'utf8mb4',
    // Without it MariaDB's JSON columns arrive parsed: an object where the code that wrote a string expects a string.
    jsonStrings: true,
  });
  // Queued before the borrower's first statement on the same connection, so no borrower can overtake it.
  pool.on('connection', (connection) => {
    connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    connection.query("SET time_zone = '+00:00', innodb_lock_wait_timeout = 2");
  });
  return pool;
}

/** For whoever a person waits for: together below the 5 s in which everything is answered. */
export const ANSWER_WITHIN = { waitMs: 1_900, statementMs: 2_900 };

/**
 * Kysely over a pool: reads, and whatever is not on a hot path.
 *
 * @param limits how long to wait for a connection and for a statement; a connection whose statement took longer is given
 *   up, for its answer may still come. Default: as long as it takes
 */
export const openDatabase = (pool: Pool, limits?: typeof ANSWER_WITHIN): Kysely<Database> =>
  new Kysely<Database>({ dialect: new MysqlDialect({ pool: limits ? limited(pool, limits) : pool }) });

/** A transaction that locks rows, for whatever doesn't go through the writer. */
export const locking = <T>(db: Kysely<Database>, work: (tx: Transaction<Database>) => Promise<T>): Promise<T> =>
  db.connection().execute(async (session) => {
    await sql.raw(LOCKS_BEGIN).execute(session);
    try {
      return await session.transaction().execute(work);
    } finally {
      await sql.raw(LOCKS_END).execute(session);
    }
  });

type Acquired = (error: unknown, connection: MysqlPoolConnection) => void;

function limited(pool: Pool, { waitMs, statementMs }: typeof ANSWER_WITHIN): MysqlPool {
  // Kysely uses no more of a connection than this.
  const wrap = (connection: PoolConnection): Pick<MysqlPoolConnection, 'query' | 'release'> => ({
    query(sql: string, values: readonly unknown[], done?: (error: unknown, result: never) => void) {
      return connection.query({ sql, values: values as unknown[], timeout: statementMs }, (error, result) => {
        if (isTimeout(error)) connection.destroy();
        done?.(error, result as never);
      }) as never;
    },
    release: () => connection.release(),
  });
  return {
    getConnection(acquired: Acquired) {
      let waiting = true;
      const timer = setTimeout(() => {
        waiting = false;
        acquired(timedOut('no connection was free in time'), undefined as never);
      }, waitMs);
      pool.getConnection((error, connection) => {
        clearTimeout(timer);
        if (waiting) acquired(error, error ? (undefined as never) : (wrap(connection) as MysqlPoolConnection));
        else if (!error) connection.release();
      });
    },
    end: (ended) => pool.end((error) => ended(error)),
  };
}

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
