import { type SqlBool, sql } from 'kysely';
import { VirtgraphError } from '../domain/errors.ts';
import type { Condition } from './condition.ts';

export const DEFAULT_PAGE = 50;
export const MAX_PAGE = 500;

export type Direction = 'ASC' | 'DESC';
export interface Order {
  /** As the graph names it; stands in cursors. */
  field: string;
  column: string;
  direction: Direction;
}

export interface PageArgs {
  first?: number | null | undefined;
  after?: string | null | undefined;
  last?: number | null | undefined;
  before?: string | null | undefined;
}

/** A stretch of a list in the order that is read: backwards where the end is asked for. */
export interface Stretch {
  size: number;
  backwards: boolean;
  conditions: Condition[];
  order: Order;
  hasAfter: boolean;
  hasBefore: boolean;
}

const invalid = (message: string, field: string): VirtgraphError =>
  new VirtgraphError({ code: 'INVALID_INPUT', message, path: [field] });

/**
 * Keyset pagination in the expanded form, which is a range scan; the tuple form is a full one.
 *
 * @param key the column that is unique and breaks ties
 * @throws VirtgraphError INVALID_INPUT
 */
export function stretchOf(args: PageArgs, order: Order, table: string, key: string): Stretch {
  const backwards = args.last != null;
  if (backwards && args.first != null) throw invalid('Give `first` or `last`, not both.', 'last');
  const size = args.last ?? args.first ?? DEFAULT_PAGE;
  const field = backwards ? 'last' : 'first';
  if (size < 0 || size > MAX_PAGE) throw invalid(`\`${field}\` is between 0 and ${MAX_PAGE}.`, field);
  const conditions: Condition[] = [];
  const bound = (cursor: string, name: 'after' | 'before') => {
    const ascending = (order.direction === 'ASC') === (name === 'after');
    conditions.push(beyond(decodeCursor(cursor, order, name), order, table, key, ascending ? '>' : '<'));
  };
  if (args.after != null) bound(args.after, 'after');
  if (args.before != null) bound(args.before, 'before');
  return { size, backwards, conditions, order, hasAfter: args.after != null, hasBefore: args.before != null };
}

type Position = { key: number; value: string | null };

function beyond(at: Position, order: Order, table: string, key: string, sign: '<' | '>'): Condition {
  const op = sql.raw(sign);
  const keyRef = sql.ref(`${table}.${key}`);
  if (at.value === null) return sql<SqlBool>`${keyRef} ${op} ${at.key}`;
  const column = sql.ref(`${table}.${order.column}`);
  return sql<SqlBool>`(${column} ${op} ${at.value} or (${column} = ${at.value} and ${keyRef} ${op} ${at.key}))`;
}

/** Opaque to its reader: the order's field with the position in it. */
export function encodeCursor(row: Record<string, unknown>, order: Order, key: string): string {
  const position = order.column === key ? [order.field, row[key]] : [order.field, row[key], row[order.column]];
  return Buffer.from(JSON.stringify(position)).toString('base64url');
}

function decodeCursor(cursor: string, order: Order, argument: string): Position {
  let position: unknown;
  try {
    position = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    throw invalid('Not a cursor.', argument);
  }
  if (!Array.isArray(position)) throw invalid('Not a cursor.', argument);
  const [field, key, value] = position as unknown[];
  if (!Number.isSafeInteger(key)) throw invalid('Not a cursor.', argument);
  if (field !== order.field) throw invalid('The cursor belongs to another order of the list.', argument);
  if (order.field === 'ID') return { key: key as number, value: null };
  if (typeof value !== 'string') throw invalid('Not a cursor.', argument);
  return { key: key as number, value };
}
