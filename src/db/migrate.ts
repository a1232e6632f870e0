import { readdir, readFile } from 'node:fs/promises';
import { type Kysely, sql } from 'kysely';
import { type Migration, Migrator } from 'kysely/migration';
import { codeOf } from './failure.ts';
import type { Database } from './tables.ts';

const FOLDER = new URL('../../schema/mysql/', import.meta.url);

/**
 * Brings the database to the newest schema. Several processes may call it at once: Kysely's lock lets one work.
 *
 * @returns names of the migrations that were run
 * @throws the error of the migration that failed; those before it stay
 */
export async function migrate(db: Kysely<Database>): Promise<string[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: readMigrations } });
  const { error, results } = await migrator.migrateToLatest();
  if (error) throw error;
  return (results ?? []).filter((r) => r.status === 'Success').map((r) => r.migrationName);
}

async function readMigrations(): Promise<Record<string, Migration>> {
  const files = (await readdir(FOLDER)).filter((file) => file.endsWith('.sql')).sort();
  const entries = await Promise.all(
    files.map(async (file): Promise<[string, Migration]> => {
      const statements = splitStatements(await readFile(new URL(file, FOLDER), 'utf8'));
      return [
        file.replace('.sql', ''),
        {
          async up(db) {
            for (const statement of statements) await sql.raw(statement).execute(db).catch(refuseUnlessDone);
          },
        },
      ];
    }),
  );
  return Object.fromEntries(entries);
}

/** A column or key that an interrupted run has made or dropped already: MySQL's ALTER TABLE knows no IF EXISTS. */
function refuseUnlessDone(error: unknown): void {
  if (!DONE_ALREADY.includes(codeOf(error))) throw error;
}

const DONE_ALREADY = ['ER_DUP_FIELDNAME', 'ER_DUP_KEYNAME', 'ER_CANT_DROP_FIELD_OR_KEY'];

/** Our own files hold no semicolon inside a statement; comments go. */
function splitStatements(text: string): string[] {
  return text
    .replace(/--.*$/gm, '')
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}
