import type { Pool } from 'mysql2';
import { repeat } from '../support/figures.ts';

const TABLE = 'bench_insert';
const FOR_MS = 3_000;

/** Rows that the database commits one by one per second, over so many connections of `pool`. */
export async function insertsPerSecond(pool: Pool, connections: number): Promise<number> {
  const database = pool.promise();
  await database.query(`create table if not exists ${TABLE} (
    id bigint unsigned not null auto_increment primary key, text varchar(255) not null) engine=InnoDB`);
  const began = performance.now();
  const insert = () => database.query(`insert into ${TABLE} (text) values (?)`, ['Runs the nightly reports']);
  const { length } = await repeat(connections, began + FOR_MS, insert);
  const seconds = (performance.now() - began) / 1000;
  await database.query(`drop table ${TABLE}`);
  return length / seconds;
}
