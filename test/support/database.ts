import { randomBytes } from 'node:crypto';
import { Kysely, MysqlDialect } from 'kysely';
import type { Pool } from 'mysql2';
import { migrate } from '../../src/db/migrate.ts';
import { openDatabase, openPool } from '../../src/db/pool.ts';
import type { Database } from '../../src/db/tables.ts';

export interface TestDatabase {
  /** For whoever opens pools of their own. */
  url: string;
  /** Takes several statements at once, as the writer's does. */
  pool: Pool;
  db: Kysely<Database>;
  /** Drops the database and ends the pool. */
  close(): Promise<void>;
}

const CONNECTIONS = 8;

/** A migrated database of its own on the server of DATABASE_URL, so that files of tests never meet. */
export async function freshDatabase(server = process.env['DATABASE_URL']): Promise<TestDatabase> {
  if (!server) throw new Error('DATABASE_URL is not set: run the tests by `npm test`.');
  const name = `test_${randomBytes(8).toString('hex')}`;
  await onServer(server, `CREATE DATABASE ${name}`);
  const url = withDatabase(server, name);
  const pool = openPool(url, { connections: CONNECTIONS, multipleStatements: true });
  const db = openDatabase(pool);
  await migrate(db);
  return {
    url,
    pool,
    db,
    async close() {
      await db.destroy();
      await onServer(server, `DROP DATABASE ${name}`);
    },
  };
}

/** Another Kysely over the same pool that writes down what it sends. */
export function recordStatements(pool: Pool): { db: Kysely<Database>; statements: string[] } {
  const statements: string[] = [];
  const db = new Kysely<Database>({
    dialect: new MysqlDialect({ pool }),
    log: (event) => {
      statements.push(event.query.sql);
    },
  });
  return { db, statements };
}

function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

async function onServer(url: string, statement: string): Promise<void> {
  const pool = openPool(withDatabase(url, ''), { connections: 1 });
  try {
    await pool.promise().query(statement);
  } finally {
    await pool.promise().end();
  }
}
