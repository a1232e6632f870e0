import type { InputRef, ObjectRef } from '@pothos/core';
import { type SqlBool, sql } from 'kysely';
import { visible } from '../db/visible.ts';
import { type Actor, mustBeKnown } from '../domain/authorize.ts';
import type { ResourceKind } from '../domain/ids.ts';
import { builder, type GraphTypes } from './builder.ts';
import { all, type Condition } from './condition.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';
import {
  DEFAULT_PAGE,
  type Direction,
  encodeCursor,
  MAX_PAGE,
  type Order,
  type PageArgs,
  type Stretch,
  stretchOf,
} from './page.ts';
import { type Row, selected } from './rows.ts';

type ListTable = ResourceKind | 'event' | 'audit';
/** What is written once, numbered, and never deleted by anybody. */
const isLog = (table: ListTable): table is 'event' | 'audit' => table === 'event' || table === 'audit';

const DirectionRef = builder.enumType('OrderDirection', {
  description: 'Which end of an order comes first.',
  values: {
    ASC: { description: 'The smallest, the oldest, the first of the alphabet.' },
    DESC: { description: 'The largest, the newest, the last of the alphabet.' },
  } as const,
});

interface ListOptions<T extends ListTable, F> {
  table: T;
  ref: ObjectRef<GraphTypes, Row<T>>;
  /** The type's name. */
  noun: string;
  filter: InputRef<F>;
  conditions: (filter: F, actor: Actor) => Condition[];
  /** Columns by which the list may be ordered besides its key; an index leads to each. */
  orders?: Record<string, { column: string; description: string }>;
  /** Of the key, when nothing is said: newest first for what grows for ever. */
  direction?: Direction;
}

/** One kind of list, wherever in the graph it stands. */
export interface List {
  table: ListTable;
  /** The column that is unique and breaks ties. */
  key: 'id' | 'seq';
  connection: ReturnType<typeof connectionOf>;
  args: ReturnType<typeof argsOf>;
  orderOf(given: ListArgs['orderBy']): Order;
  /** What holds for each row of the list, whatever the page. */
  conditionsFor(filter: unknown, context: GraphContext): Condition[];
}

/** Declares `<Noun>Connection`, `<Noun>Edge`, `<Noun>Order` and what reads them. */
export function list<T extends ListTable, F>(options: ListOptions<T, F>): List {
  const { table, ref, noun, direction = 'ASC' } = options;
  const key = isLog(table) ? 'seq' : 'id';
  const orders: Record<string, { column: string; description: string }> = {
    ID: { column: key, description: 'In the order of creation.' },
    ...options.orders,
  };
  const live = table === 'job' || isLog(table) ? [] : [sql<SqlBool>`${sql.ref(`${table}.deleted_at`)} is null`];
  return {
    table,
    key,
    connection: connectionOf(ref as never, noun),
    args: argsOf(noun, orders, options.filter as InputRef<unknown>, direction),
    orderOf(given) {
      const field = given?.field ?? 'ID';
      return { field, column: orders[field]!.column, direction: given ? (given.direction ?? 'ASC') : direction };
    },
    conditionsFor: (filter, context) => [
      ...live,
      visible(context.actor, table),
      ...(filter ? options.conditions(filter as F, context.actor) : []),
    ],
  };
}

function argsOf(
  noun: string,
  orders: Record<string, { description: string }>,
  filter: InputRef<unknown>,
  direction: Direction,
) {
  const field = builder.enumType(`${noun}OrderField`, {
    description: `What a list of ${noun} is ordered by.`,
    values: Object.fromEntries(Object.entries(orders).map(([name, { description }]) => [name, { description }])),
  });
  const order = builder.inputType(`${noun}Order`, {
    description: `The order of a list of ${noun}.`,
    fields: (t) => ({
      field: t.field({ type: field, required: true, description: 'By what.' }),
      direction: t.field({ type: DirectionRef, defaultValue: 'ASC', description: 'Which end first.' }),
    }),
  });
  return builder.args((t) => ({
    first: t.int({ description: `How many from the start: ${DEFAULT_PAGE} unless told, ${MAX_PAGE} at most.` }),
    after: t.string({ description: 'Only what follows this cursor.' }),
    last: t.int({ description: `How many from the end instead, ${MAX_PAGE} at most.` }),
    before: t.string({ description: 'Only what stands before this cursor.' }),
    filter: t.field({ type: filter, description: 'Only what fits all that is given.' }),
    orderBy: t.field({
      type: order,
      description: `By default in the order of creation, ${direction === 'ASC' ? 'oldest' : 'newest'} first.`,
    }),
  }));
}

function connectionOf(ref: ObjectRef<GraphTypes, Row<ListTable>>, noun: string) {
  return builder.connectionObject(
    {
      type: ref,
      name: `${noun}Connection`,
      description: `A page of a list of ${noun}.`,
      edgesField: { description: 'The page, each with its cursor.' },
      fields: (t) => ({
        nodes: t.field({
          type: [ref],
          description: 'The page, without cursors.',
          resolve: (page) => (page as unknown as Page).nodes,
        }),
        totalCount: t.int({
          nullable: true,
          description: 'How many there are on all pages. Counted only when asked for.',
          extensions: { cost: { own: 5 } },
          resolve: (page) => (page as unknown as Page).count(),
        }),
      }),
    },
    {
      name: `${noun}Edge`,
      description: `A ${noun} in a list.`,
      nodeField: { description: `The ${noun}.` },
    },
  );
}

interface ListArgs extends PageArgs {
  filter?: unknown;
  orderBy?: { field: string; direction?: Direction | null | undefined } | null | undefined;
}

/** A page as the graph asks for it: edges, cursors and the count are made only on demand. */
class Page {
  readonly nodes: Row<ListTable>[];
  readonly count: () => Promise<number>;
  readonly #more: boolean;
  readonly #stretch: Stretch;
  readonly #key: string;

  constructor(rows: Row<ListTable>[], stretch: Stretch, key: string, count: () => Promise<number>) {
    this.#more = rows.length > stretch.size;
    this.nodes = this.#more ? rows.slice(0, stretch.size) : rows;
    if (stretch.backwards) this.nodes = this.nodes.toReversed();
    this.#stretch = stretch;
    this.#key = key;
    this.count = count;
  }

  get edges(): { node: Row<ListTable>; cursor: string }[] {
    return this.nodes.map((node) => ({ node, cursor: this.#cursor(node)! }));
  }

  get pageInfo() {
    const { backwards, hasAfter, hasBefore } = this.#stretch;
    return {
      hasNextPage: backwards ? hasBefore : this.#more,
      hasPreviousPage: backwards ? this.#more : hasAfter,
      startCursor: this.#cursor(this.nodes[0]),
      endCursor: this.#cursor(this.nodes.at(-1)),
    };
  }

  #cursor(row: Row<ListTable> | undefined): string | null {
    return row ? encodeCursor(row as unknown as Record<string, unknown>, this.#stretch.order, this.#key) : null;
  }
}

const LIST_COST = { cost: { own: 1, list: true } };
type FieldsOf<Parent> = PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, Parent>;

/** A list at the root: all that the caller may see. */
export function rootList(t: PothosSchemaTypes.QueryFieldBuilder<GraphTypes, object>, of: List, description: string) {
  return t.field({
    type: of.connection,
    args: of.args,
    description,
    extensions: LIST_COST,
    resolve: (_root, args, context) => readRoot(of, args, context) as never,
  });
}

/** A list below an object: its rows name the object in `column`, and fit `where`. */
export function childList<Parent extends { id: number }>(
  t: FieldsOf<Parent>,
  of: List,
  description: string,
  column: string,
  where?: { name: string; condition: Condition },
) {
  return t.field({
    type: of.connection,
    args: of.args,
    description,
    extensions: LIST_COST,
    resolve: (parent, args, context) => readBelow(of, args, context, (parent as Parent).id, column, where) as never,
  });
}

async function readRoot(of: List, args: ListArgs, context: GraphContext): Promise<Page> {
  mustBeKnown(context.actor);
  const stretch = stretchOf(args, of.orderOf(args.orderBy), of.table, of.key);
  const conditions = of.conditionsFor(args.filter, context);
  const { rows } = await sql<Row<ListTable>>`
    select ${selected(of.table)} from ${inOrder(of)}
    where ${all([...conditions, ...stretch.conditions])}
    order by ${orderSql(of, stretch)} limit ${stretch.size + 1}`.execute(context.db);
  keep(context, of, rows);
  return new Page(rows, stretch, of.key, async () => {
    const { rows: counted } = await sql<{ count: number }>`
      select count(*) as count from ${sql.table(of.table)} where ${all(conditions)}`.execute(context.db);
    return counted[0]!.count;
  });
}

async function readBelow(
  of: List,
  args: ListArgs,
  context: GraphContext,
  parentId: number,
  column: string,
  where?: { name: string; condition: Condition },
): Promise<Page> {
  mustBeKnown(context.actor);
  const loaders = loadersOf(context);
  const place = `${of.table}.${column}.${where?.name ?? ''}`;
  const stretch = stretchOf(args, of.orderOf(args.orderBy), of.table, of.key);
  const conditionsFor = () => [...(where ? [where.condition] : []), ...of.conditionsFor(args.filter, context)];
  const rows = await loaders.below(`${place} ${JSON.stringify(args)}`, parentId, (ids) =>
    readPages(of, stretch, conditionsFor(), context, column, ids),
  );
  return new Page(rows, stretch, of.key, () =>
    loaders.below(`${place} count ${JSON.stringify(args.filter)}`, parentId, (ids) =>
      countBelow(of, conditionsFor(), context, column, ids),
    ),
  );
}

/**
 * The same page below many parents in one statement. Places are numbered over an index alone; the rest of a row is read
 * only where it is on the page. MariaDB has no LATERAL; below one parent a plain LIMIT stops early.
 */
async function readPages(
  of: List,
  stretch: Stretch,
  conditions: Condition[],
  context: GraphContext,
  column: string,
  ids: readonly number[],
): Promise<Row<ListTable>[][]> {
  const parent = sql.ref(`${of.table}.${column}`);
  const order = orderSql(of, stretch);
  const where = all([
    ids.length === 1 ? sql<SqlBool>`${parent} = ${ids[0]}` : sql<SqlBool>`${parent} in (${sql.join(ids)})`,
    ...conditions,
    ...stretch.conditions,
  ]);
  const table = sql.table(of.table);
  const key = sql.ref(`${of.table}.${of.key}`);
  const limit = stretch.size + 1;
  const query =
    ids.length === 1
      ? sql<Row<ListTable>>`
          select ${selected(of.table)} from ${inOrder(of)} where ${where} order by ${order} limit ${limit}`
      : sql<Row<ListTable>>`
          select ${selected(of.table)} from (
            select ${key} as placed_key, row_number() over (partition by ${parent} order by ${order}) as place
            from ${table} where ${where}
          ) as placed inner join ${table} on ${key} = placed_key
          where place <= ${limit} order by place`;
  const { rows } = await query.execute(context.db);
  keep(context, of, rows);
  const pages = new Map<number, Row<ListTable>[]>(ids.map((id) => [id, []]));
  for (const row of rows) pages.get((row as unknown as Record<string, number>)[column]!)!.push(row);
  return ids.map((id) => pages.get(id)!);
}

async function countBelow(
  of: List,
  conditions: Condition[],
  context: GraphContext,
  column: string,
  ids: readonly number[],
): Promise<number[]> {
  const parent = sql.ref(`${of.table}.${column}`);
  const { rows } = await sql<{ parent: number; count: number }>`
    select ${parent} as parent, count(*) as count from ${sql.table(of.table)}
    where ${all([sql<SqlBool>`${parent} in (${sql.join(ids)})`, ...conditions])} group by ${parent}`.execute(
    context.db,
  );
  const counts = new Map(rows.map((row) => [row.parent, row.count]));
  return ids.map((id) => counts.get(id) ?? 0);
}

/**
 * Deleted rows are the oldest. The optimizer takes them to be spread evenly, and would walk the primary key through all
 * of them to find the first page of those that live; an index that leads by `deleted_at` begins with it.
 */
const inOrder = (of: List) =>
  of.table === 'vm' || of.table === 'volume'
    ? sql`${sql.table(of.table)} ignore index for order by (primary)`
    : sql.table(of.table);

function orderSql(of: List, { order, backwards }: Stretch) {
  const direction = sql.raw((order.direction === 'ASC') === backwards ? 'desc' : 'asc');
  const key = sql`${sql.ref(`${of.table}.${of.key}`)} ${direction}`;
  return order.column === of.key ? key : sql`${sql.ref(`${of.table}.${order.column}`)} ${direction}, ${key}`;
}

function keep(context: GraphContext, of: List, rows: Row<ListTable>[]): void {
  if (!isLog(of.table)) loadersOf(context).keep(of.table, rows as Row<ResourceKind>[]);
}
