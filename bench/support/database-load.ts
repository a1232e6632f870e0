import type { Pool, RowDataPacket } from 'mysql2';

const WRITES = ['Com_insert', 'Com_insert_select', 'Com_update', 'Com_update_multi', 'Com_delete', 'Com_delete_multi'];

/** Counters of the whole server, so nothing else may use it meanwhile. */
export interface DatabaseLoad {
  statements: number;
  /** Statements that write. */
  writes: number;
  commits: number;
}

export async function readDatabaseLoad(pool: Pool): Promise<DatabaseLoad> {
  const [rows] = await pool.promise().query<RowDataPacket[]>('show global status');
  const counters = new Map(rows.map((row) => [String(row['Variable_name']), Number(row['Value'])]));
  const of = (name: string): number => counters.get(name)!;
  return {
    // Without this one, which counts itself.
    statements: of('Questions'),
    writes: WRITES.reduce((sum, name) => sum + of(name), 0),
    commits: of('Com_commit'),
  };
}

/** What was counted between two readings, less the second reading itself. */
export const loadBetween = (before: DatabaseLoad, after: DatabaseLoad): DatabaseLoad => ({
  statements: after.statements - before.statements - 1,
  writes: after.writes - before.writes,
  commits: after.commits - before.commits,
});
