import { type Expression, type Selectable, type SqlBool, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import { visible } from '../db/visible.ts';
import type { Actor } from '../domain/authorize.ts';
import type { ResourceKind } from '../domain/ids.ts';
import { uidOf } from './public-id.ts';

export type Condition = Expression<SqlBool>;
type Columns<T extends keyof Database> = Selectable<Database[T]>;
type ColumnOf<T extends keyof Database> = keyof Columns<T> & string;

/** What a list may be narrowed by. A value that is null or absent narrows nothing. */
export function conditionsOn<T extends keyof Database>(table: T) {
  const column = (name: ColumnOf<T>) => sql.ref(`${table}.${name}`);
  return {
    is: <C extends ColumnOf<T>>(name: C, value: Columns<T>[C] | null | undefined): Condition[] =>
      value == null ? [] : [sql<SqlBool>`${column(name)} = ${value}`],
    /** None of an empty list. */
    isOneOf: <C extends ColumnOf<T>>(name: C, values: readonly Columns<T>[C][] | null | undefined): Condition[] => {
      if (!values) return [];
      return [values.length === 0 ? sql<SqlBool>`false` : sql<SqlBool>`${column(name)} in (${sql.join(values)})`];
    },
    /** Refers to the object with this public id; nothing does to one that is not there for the actor. */
    refersTo: (
      name: ColumnOf<T>,
      kind: ResourceKind,
      id: string | null | undefined,
      field: string,
      actor: Actor,
    ): Condition[] =>
      id == null
        ? []
        : [
            sql<SqlBool>`${column(name)} = (
            select id from ${sql.table(kind)}
            where uid = ${uidOf(kind, id, ['filter', field])} and ${visible(actor, kind)})`,
          ],
    startsWith: (name: ColumnOf<T>, prefix: string | null | undefined): Condition[] =>
      prefix == null ? [] : [sql<SqlBool>`${column(name)} like ${`${prefix.replace(/[\\%_]/g, '\\$&')}%`}`],
  };
}

export const all = (conditions: readonly Condition[]): Condition =>
  conditions.length === 0 ? sql<SqlBool>`true` : sql<SqlBool>`${sql.join(conditions, sql` and `)}`;
