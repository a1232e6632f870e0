import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import { Ids, newUid } from '../../src/db/ids.ts';
import { migrate } from '../../src/db/migrate.ts';
import { openDatabase, openPool } from '../../src/db/pool.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

interface Column {
  nullable: boolean;
}

const DB = new URL('../../src/db/', import.meta.url);
/** Where the rows are declared. */
const DECLARED = ['column-types.ts', ...readdirSync(DB).filter((file) => file.endsWith('tables.ts'))];

/** The interfaces as they are written: table → column → whether it may be null. */
function declaredTables(): Map<string, Map<string, Column>> {
  const read = (file: string): string => readFileSync(new URL(file, DB), 'utf8');
  const text = DECLARED.map(read).join('\n');
  const interfaces = new Map<string, { base: string | undefined; body: string }>();
  for (const [, name, base, body] of text.matchAll(/interface (\w+)(?: extends (\w+))? \{\n(.*?)\n\}/gs))
    interfaces.set(name!, { base, body: body! });
  const columnsOf = (name: string): Map<string, Column> => {
    const { base, body } = interfaces.get(name)!;
    const columns = base ? columnsOf(base) : new Map<string, Column>();
    for (const [, column, type] of body.matchAll(/^ {2}(\w+): (.*);$/gm))
      columns.set(column!, { nullable: type!.includes('| null') || type!.includes('NullableTimestamp') });
    return columns;
  };
  const tables = interfaces.get('Database')!.body.matchAll(/^ {2}(\w+): (\w+);$/gm);
  return new Map([...tables].map(([, table, name]) => [table!, columnsOf(name!)]));
}

describe('the schema', () => {
  let database: TestDatabase;
  before(async () => {
    database = await freshDatabase();
  });
  after(() => database.close());

  const schemaText = async (db = database.db): Promise<string> => {
    const { rows } = await sql<{ name: string; line: string }>`
      SELECT table_name AS name, CONCAT_WS(' ', table_name, column_name, column_type, is_nullable, column_default) AS line
      FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position`.execute(
      db,
    );
    return rows.map((row) => row.line).join('\n');
  };

  it('has every column that tables.ts declares, as nullable as it says, and no table besides', async () => {
    const { rows } = await sql<{ t: string; c: string; n: string; computed: string | null }>`
      SELECT table_name AS t, column_name AS c, is_nullable AS n, generation_expression AS computed
      FROM information_schema.columns WHERE table_schema = DATABASE()`.execute(database.db);
    const declared = declaredTables();
    assert.ok(declared.size > 15);
    const internal = ['kysely_migration', 'kysely_migration_lock', 'id_block'];
    const actual = rows.filter((row) => !internal.includes(row.t));
    for (const [table, columns] of declared) {
      const mine = actual.filter((row) => row.t === table);
      const written = mine.filter((row) => !row.computed);
      assert.deepEqual(
        Object.fromEntries(written.map((row) => [row.c, { nullable: row.n === 'YES' }]).sort()),
        Object.fromEntries([...columns].sort()),
        table,
      );
    }
    assert.deepEqual(
      [...new Set(actual.map((row) => row.t))].filter((t) => !declared.has(t)),
      [],
    );
  });

  it('is the same after a second migration, which does nothing', async () => {
    const before = await schemaText();
    assert.deepEqual(await migrate(database.db), []);
    assert.equal(await schemaText(), before);
  });

  it('is made once when two processes migrate at the same time', async () => {
    const name = `test_${newUid().toString('hex').slice(0, 16)}`;
    await sql.raw(`CREATE DATABASE ${name}`).execute(database.db);
    const url = new URL(database.url);
    url.pathname = `/${name}`;
    const both = [1, 2].map(() => openDatabase(openPool(url.href, { connections: 2 })));
    try {
      const ran = await Promise.all(both.map((db) => migrate(db)));
      assert.deepEqual(ran.flat().sort(), [...new Set(ran.flat())].sort());
      assert.ok(ran.flat().length > 0);
      assert.equal(await schemaText(both[0]), await schemaText());
    } finally {
      await Promise.all(both.map((db) => db.destroy()));
      await sql.raw(`DROP DATABASE ${name}`).execute(database.db);
    }
  });

  it('gives ids that are unique, whoever takes them and however many at once', async () => {
    const takers = [new Ids(database.db), new Ids(database.db), new Ids(database.db)];
    const ids = await Promise.all(Array.from({ length: 4_500 }, (_, n) => takers[n % 3]!.take()));
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.every((id) => Number.isSafeInteger(id) && id >= 1000));
  });

  it('gives uids that sort in the order of time', () => {
    const uids = Array.from({ length: 1_000 }, () => newUid().toString('hex'));
    assert.equal(new Set(uids).size, 1_000);
    const times = uids.map((uid) => uid.slice(0, 12));
    assert.deepEqual(times, [...times].sort());
  });
});
