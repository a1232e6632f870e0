import type { Insertable, Kysely, Selectable } from 'kysely';
import { newUid } from '../db/ids.ts';
import type { Database } from '../db/tables.ts';
import {
  type Absent,
  absent,
  type Change,
  emptyTransition,
  type Hold,
  insert,
  type NewEvent,
  now,
  patch,
  plus,
  type Settable,
  type Write,
} from '../db/transition.ts';
import { visible } from '../db/visible.ts';
import { type Actor, isOperators, ownerOf } from '../domain/authorize.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import type { WantedState } from '../domain/host-state.ts';
import { decodeIdOf } from '../domain/ids.ts';
import type { FieldChange } from '../domain/kinds.ts';
import type { OpsContext } from './context.ts';
import { byId } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { mustHaveRightWith } from './rights.ts';

/** The kinds that are named, switched and deleted in the same way. */
export type NamedKind =
  | 'zone'
  | 'pod'
  | 'cluster'
  | 'host'
  | 'primary_storage'
  | 'offering'
  | 'template'
  | 'domain'
  | 'account'
  | 'user'
  | 'role'
  | 'identity_provider';
/** Those and others that are found by their public id, as long as they live. */
type FoundKind = NamedKind | 'vm' | 'api_key' | 'project_member';
/** Columns that all named ones have. */
interface NamedRow {
  id: number;
  uid: Buffer;
  name: string;
  wanted_state: WantedState;
  generation: number;
  account_id?: number | null;
}
export type RowOf<K extends NamedKind> = NamedRow & Selectable<Database[K]>;

/** What must be gone before a resource may be: where it is kept, and what people call it. */
interface Inside {
  table: Absent['table'];
  column: string;
  noun: [one: string, many: string];
}

const inside = (table: Absent['table'], column: string, one: string, many = `${one}s`): Inside => ({
  table,
  column,
  noun: [one, many],
});

export const NOUN: Record<FoundKind, string> = {
  zone: 'zone',
  pod: 'pod',
  cluster: 'cluster',
  host: 'host',
  primary_storage: 'primary storage',
  offering: 'offering',
  template: 'template',
  domain: 'domain',
  account: 'account',
  user: 'user',
  role: 'role',
  identity_provider: 'identity provider',
  vm: 'VM',
  api_key: 'API key',
  project_member: 'project member',
};

const INSIDE: Record<NamedKind, Inside[]> = {
  zone: [inside('pod', 'zone_id', 'pod'), inside('template', 'zone_id', 'template'), inside('vm', 'zone_id', 'VM')],
  pod: [inside('cluster', 'pod_id', 'cluster')],
  cluster: [
    inside('host', 'cluster_id', 'host'),
    inside('primary_storage', 'cluster_id', 'primary storage', 'primary storages'),
    inside('vm', 'cluster_id', 'VM'),
  ],
  host: [inside('vm', 'host_id', 'VM')],
  primary_storage: [inside('volume', 'primary_storage_id', 'volume')],
  offering: [inside('vm', 'offering_id', 'VM')],
  template: [inside('vm', 'template_id', 'VM')],
  domain: [inside('domain', 'parent_id', 'domain'), inside('account', 'domain_id', 'account')],
  account: [
    inside('user', 'account_id', 'user'),
    inside('vm', 'account_id', 'VM'),
    inside('volume', 'account_id', 'volume'),
    inside('template', 'account_id', 'template'),
    inside('identity_provider', 'account_id', 'identity provider'),
  ],
  // Its keys go with it.
  user: [],
  role: [
    inside('user', 'role_id', 'user'),
    inside('api_key', 'role_id', 'API key'),
    inside('project_member', 'role_id', 'project member'),
  ],
  identity_provider: [inside('user', 'identity_provider_id', 'user')],
};

const NAMES_SHOWN = 5;

/**
 * The row of a public id.
 *
 * @throws VirtgraphError NOT_FOUND, also for an id of another kind
 */
export async function find<K extends FoundKind>(
  context: OpsContext,
  kind: K,
  id: string,
  path: string[],
  actor: Actor,
): Promise<Selectable<Database[K]>> {
  const uid = decodeIdOf(kind, id);
  const row =
    uid &&
    (await context.db
      .selectFrom(kind as 'zone')
      .selectAll()
      .where('uid', '=', uid)
      .where('deleted_at', 'is', null)
      .where(visible(actor, kind))
      .executeTakeFirst());
  if (!row) throw notFound(NOUN[kind], path);
  return row as unknown as Selectable<Database[K]>;
}

/** As `find`, for who would change it. @throws VirtgraphError NOT_FOUND, FORBIDDEN */
export async function findToChange<K extends NamedKind>(
  context: OpsContext,
  kind: K,
  id: string,
  asker: Asker,
): Promise<RowOf<K>> {
  const { actor } = asker;
  const row = (await find(context, kind, id, ['id'], actor)) as RowOf<K>;
  await mustHaveRightWith(context, asker, kind, row);
  if (!isOperators(actor, kind, row)) return row;
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `Everybody may use this ${NOUN[kind]}: operators alone change it.`,
    path: ['id'],
  });
}

/** What is written beside the row itself. */
export interface Also {
  writes: Write[];
  changes: Change[];
  /** What must still be so of the row itself. */
  still?: Record<string, unknown>;
}
const NOTHING_ELSE: Also = { writes: [], changes: [] };

/** Tells what was done; to those of the account too that it was done to. A domain is of nobody's: to whoever did it. */
export function told(
  kind: FoundKind,
  row: { id: number; account_id?: number | null },
  what: string,
  asker: Asker,
  changes: FieldChange[],
): NewEvent {
  const own = kind === 'domain' && asker.actor.kind === 'user' ? asker.actor.accountId : null;
  return {
    type: `${kind}.${what}`,
    subject: { kind, id: row.id },
    accountId: own ?? ownerOf(kind, row),
    jobId: null,
    actor: asker.name,
    reason: asker.reason,
    changes,
  };
}

/** A change of some columns, with the event that tells before and after. */
export function changed<K extends NamedKind>(
  kind: K,
  row: RowOf<K>,
  asker: Asker,
  set: Record<string, unknown>,
  changes: FieldChange[],
  also = NOTHING_ELSE,
): Decision {
  return {
    kind: 'write',
    id: row.id,
    jobId: null,
    transition: {
      ...emptyTransition(),
      writes: [
        patch(kind as 'zone', row.id, { generation: row.generation, deleted_at: null }, {
          ...set,
          generation: plus(1),
        } as Settable<'zone'>),
        ...also.writes,
      ],
      changes: [{ kind, id: row.id }, ...also.changes],
      events: [told(kind, row, 'updated', asker, changes)],
    },
  };
}

type CreatedKind = Exclude<NamedKind, 'host' | 'template'>;

/**
 * A new row with its ids, under parents that must live until it is committed, and the event that tells of it.
 *
 * @throws VirtgraphError FORBIDDEN where the right to make such a thing is one of a project, and this is not made there
 */
export async function create<K extends CreatedKind>(
  context: OpsContext,
  kind: K,
  asker: Asker,
  columns: Omit<Insertable<Database[K]>, 'id' | 'uid'> & { id?: number; name: string },
  parents: Hold[] = [],
  /** What stands beside the row from the beginning. */
  beside: (id: number) => Write[] = () => [],
): Promise<Decision> {
  await mustHaveRightWith(context, asker, kind, { account_id: (columns as Partial<NamedRow>).account_id ?? null });
  const id = columns.id ?? (await context.ids.take());
  const row = { id, uid: newUid(), ...columns };
  return {
    kind: 'write',
    id,
    jobId: null,
    transition: {
      ...emptyTransition(),
      writes: [...parents, insert(kind as 'zone', row as never), ...beside(id)],
      changes: [{ kind, id }],
      events: [
        told(kind, { ...columns, id }, 'created', asker, [{ field: 'name', before: null, after: columns.name }]),
      ],
    },
  };
}

/** @throws VirtgraphError CONFLICT when the caller saw another version */
export function mustBeGeneration(row: { generation: number }, expected: number | null | undefined): void {
  if (expected == null || expected === row.generation) return;
  throw new VirtgraphError({
    code: 'CONFLICT',
    message: `It has been changed meanwhile: generation ${row.generation}, not ${expected}.`,
    path: ['expectedGeneration'],
  });
}

interface UpdateInput {
  id: string;
  name?: string | null | undefined;
  expectedGeneration?: number | null | undefined;
}

/** What every update does: the name, and what a kind adds. */
export async function update<K extends NamedKind, I extends UpdateInput>(
  context: OpsContext,
  kind: K,
  input: I,
  asker: Asker,
  more: (row: RowOf<K>) => Promise<{
    set: Record<string, unknown>;
    changes: FieldChange[];
    also?: Also;
  }> = async () => ({
    set: {},
    changes: [],
  }),
): Promise<Decision> {
  const row = await findToChange(context, kind, input.id, asker);
  mustBeGeneration(row, input.expectedGeneration);
  const { set, changes, also } = await more(row);
  if (input.name != null && input.name !== row.name) {
    set['name'] = input.name;
    changes.push({ field: 'name', before: row.name, after: input.name });
  }
  return changes.length === 0 ? { kind: 'already', id: row.id } : changed(kind, row, asker, set, changes, also);
}

export type Wanted = WantedState | 'DELETED' | 'MOVED';

/** What some kinds have beyond the rest. */
export interface Extras<K extends NamedKind> {
  /** Refuses what the role alone would not. @throws VirtgraphError */
  guard?: (context: OpsContext, row: RowOf<K>, asker: Asker, wanted: Wanted) => Promise<void> | void;
  /** What goes with what is deleted. */
  along?: (context: OpsContext, row: RowOf<K>) => Promise<Also>;
}

/** What enabling and disabling decide. */
export const switching =
  <K extends NamedKind>(kind: K, wanted: WantedState, { guard }: Extras<K>) =>
  async (context: OpsContext, input: { id: string }, asker: Asker): Promise<Decision> => {
    const row = await findToChange(context, kind, input.id, asker);
    await guard?.(context, row, asker, wanted);
    return switched(kind, row, asker, wanted);
  };

/** The same, for who was let through. */
export const switched = <K extends NamedKind>(kind: K, row: RowOf<K>, asker: Asker, wanted: WantedState): Decision =>
  row.wanted_state === wanted
    ? { kind: 'already', id: row.id }
    : changed(kind, row, asker, { wanted_state: wanted }, [
        { field: 'wantedState', before: row.wanted_state, after: wanted },
      ]);

/** What deleting decides: only what nothing is inside. */
export const removal =
  <K extends NamedKind>(kind: K, { guard, along }: Extras<K>) =>
  async (context: OpsContext, input: { id: string }, asker: Asker): Promise<Decision> => {
    const row = await findToChange(context, kind, input.id, asker);
    await guard?.(context, row, asker, 'DELETED');
    await mustBeEmpty(context.db, kind, row);
    const also = (await along?.(context, row)) ?? NOTHING_ELSE;
    return {
      kind: 'write',
      id: row.id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          patch(kind as 'zone', row.id, { generation: row.generation, deleted_at: null, ...also.still }, {
            deleted_at: now,
          } as Settable<'zone'>),
          ...INSIDE[kind].map(({ table, column }) => absent(table, column, row.id)),
          ...also.writes,
        ],
        changes: [{ kind, id: row.id }, ...also.changes],
        events: [told(kind, row, 'deleted', asker, [{ field: 'name', before: row.name, after: null }])],
      },
    };
  };

export const remove = <K extends NamedKind>(kind: K, name: string, extras: Extras<K> = {}) =>
  mutation(name, { verb: 'delete', kind }, byId(kind), removal(kind, extras));

/** `a, b and c` */
const ENUMERATION = new Intl.ListFormat('en-GB');

/** Says what is in the way. The guard in the transaction decides; this is for people. */
async function mustBeEmpty(db: Kysely<Database>, kind: NamedKind, row: { id: number; name: string }): Promise<void> {
  const found: string[] = [];
  for (const { table, column, noun } of INSIDE[kind]) {
    const query = db
      .selectFrom(table as 'vm')
      .where(column as 'zone_id', '=', row.id)
      .where('deleted_at', 'is', null);
    const { n } = await query.select((eb) => eb.fn.countAll<number>().as('n')).executeTakeFirstOrThrow();
    if (Number(n) === 0) continue;
    const count = `${n} ${noun[Number(n) === 1 ? 0 : 1]}`;
    // A membership has no name.
    if (table === 'project_member') {
      found.push(count);
      continue;
    }
    const some = await query.select('name').orderBy('id').limit(NAMES_SHOWN).execute();
    const names = some.map((r) => r.name).join(', ');
    found.push(`${count} (${names}${Number(n) > NAMES_SHOWN ? ', …' : ''})`);
  }
  if (found.length === 0) return;
  throw new VirtgraphError({
    code: 'NOT_EMPTY',
    message: `The ${NOUN[kind]} ${row.name} still has ${ENUMERATION.format(found)}.`,
    path: ['id'],
  });
}

/** enable, disable and delete of one kind, by the names of their mutations. */
export const switches = <K extends NamedKind>(kind: K, noun: string, extras: Extras<K> = {}) => ({
  enable: mutation(`enable${noun}`, { verb: 'update', kind }, byId(kind), switching(kind, 'ENABLED', extras)),
  disable: mutation(`disable${noun}`, { verb: 'update', kind }, byId(kind), switching(kind, 'DISABLED', extras)),
  remove: remove(kind, `delete${noun}`, extras),
});
