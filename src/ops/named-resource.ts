import type { Insertable, Kysely } from 'kysely';
import { newUid } from '../db/ids.ts';
import type { Database } from '../db/tables.ts';
import {
  type Absent,
  absent,
  type Change,
  emptyTransition,
  type Hold,
  insert,
  now,
  patch,
  plus,
  type Settable,
  type Write,
} from '../db/transition.ts';
import { visible } from '../db/visible.ts';
import type { Actor } from '../domain/authorize.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import { decodeIdOf } from '../domain/ids.ts';
import type { FieldChange, TargetKind } from '../domain/kinds.ts';
import type { OpsContext } from './context.ts';
import { byId } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';

/** The kinds that operators name, switch and delete in the same way. */
export type NamedKind = 'zone' | 'pod' | 'cluster' | 'host' | 'primary_storage' | 'offering' | 'template';

interface NamedRow {
  id: number;
  uid: Buffer;
  name: string;
  wanted_state: 'ENABLED' | 'DISABLED';
  generation: number;
}

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

export const NOUN: Record<NamedKind, string> = {
  zone: 'zone',
  pod: 'pod',
  cluster: 'cluster',
  host: 'host',
  primary_storage: 'primary storage',
  offering: 'offering',
  template: 'template',
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
};

const NAMES_SHOWN = 5;

/**
 * The row of a public id.
 *
 * @throws VirtgraphError NOT_FOUND, also for an id of another kind
 */
export async function find<K extends NamedKind>(
  context: OpsContext,
  kind: K,
  id: string,
  path: string[],
  actor: Actor,
): Promise<NamedRow> {
  const uid = decodeIdOf(kind, id);
  const row =
    uid &&
    (await context.db
      .selectFrom(kind as 'zone')
      .select(['id', 'uid', 'name', 'wanted_state', 'generation'])
      .where('uid', '=', uid)
      .where('deleted_at', 'is', null)
      .where(visible(actor, kind))
      .executeTakeFirst());
  if (!row) throw notFound(NOUN[kind], path);
  return row;
}

/** A change of some columns, with the event that tells before and after. */
export function changed(
  kind: NamedKind,
  row: NamedRow,
  asker: Asker,
  set: Record<string, unknown>,
  changes: FieldChange[],
  also: { writes: Write[]; changes: Change[] } = { writes: [], changes: [] },
): Decision {
  return {
    kind: 'write',
    id: row.id,
    jobId: null,
    transition: {
      ...emptyTransition(),
      writes: [
        patch(kind, row.id, { generation: row.generation, deleted_at: null }, {
          ...set,
          generation: plus(1),
        } as Settable<'zone'>),
        ...also.writes,
      ],
      changes: [{ kind, id: row.id }, ...also.changes],
      events: [
        {
          type: `${kind}.updated`,
          subject: { kind: kind as TargetKind, id: row.id },
          jobId: null,
          actor: asker.name,
          reason: asker.reason,
          changes,
        },
      ],
    },
  };
}

type CreatedKind = 'zone' | 'pod' | 'cluster' | 'primary_storage' | 'offering';

/** A new row with its ids, under parents that must live until it is committed, and the event that tells of it. */
export async function create<K extends CreatedKind>(
  context: OpsContext,
  kind: K,
  asker: Asker,
  columns: Omit<Insertable<Database[K]>, 'id' | 'uid'> & { name: string },
  parents: Hold[] = [],
): Promise<Decision> {
  const id = await context.ids.take();
  const row = { id, uid: newUid(), ...columns } as unknown as Insertable<Database[K]>;
  return {
    kind: 'write',
    id,
    jobId: null,
    transition: {
      ...emptyTransition(),
      writes: [...parents, insert(kind, row)],
      changes: [{ kind, id }],
      events: [
        {
          type: `${kind}.created`,
          subject: { kind, id },
          jobId: null,
          actor: asker.name,
          reason: asker.reason,
          changes: [{ field: 'name', before: null, after: columns.name }],
        },
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
export async function update<I extends UpdateInput>(
  context: OpsContext,
  kind: NamedKind,
  input: I,
  asker: Asker,
  more: (row: NamedRow) => Promise<{
    set: Record<string, unknown>;
    changes: FieldChange[];
    also?: { writes: Write[]; changes: Change[] };
  }> = async () => ({
    set: {},
    changes: [],
  }),
): Promise<Decision> {
  const row = await find(context, kind, input.id, ['id'], asker.actor);
  mustBeGeneration(row, input.expectedGeneration);
  const { set, changes, also } = await more(row);
  if (input.name != null && input.name !== row.name) {
    set['name'] = input.name;
    changes.push({ field: 'name', before: row.name, after: input.name });
  }
  return changes.length === 0 ? { kind: 'already', id: row.id } : changed(kind, row, asker, set, changes, also);
}

const switchTo = (kind: NamedKind, name: string, wanted: 'ENABLED' | 'DISABLED') =>
  mutation(name, { verb: 'update', kind }, byId(kind), async (context, input, asker) => {
    const row = await find(context, kind, input.id, ['id'], asker.actor);
    if (row.wanted_state === wanted) return { kind: 'already', id: row.id };
    return changed(kind, row, asker, { wanted_state: wanted }, [
      { field: 'wantedState', before: row.wanted_state, after: wanted },
    ]);
  });

const remove = (kind: NamedKind, name: string) =>
  mutation(name, { verb: 'delete', kind }, byId(kind), async (context, input, asker) => {
    const row = await find(context, kind, input.id, ['id'], asker.actor);
    await mustBeEmpty(context.db, kind, row);
    return {
      kind: 'write',
      id: row.id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [
          patch(kind, row.id, { deleted_at: null }, { deleted_at: now } as Settable<'zone'>),
          ...INSIDE[kind].map(({ table, column }) => absent(table, column, row.id)),
        ],
        changes: [{ kind, id: row.id }],
        events: [
          {
            type: `${kind}.deleted`,
            subject: { kind: kind as TargetKind, id: row.id },
            jobId: null,
            actor: asker.name,
            reason: asker.reason,
            changes: [{ field: 'name', before: row.name, after: null }],
          },
        ],
      },
    };
  });

/** `a, b and c` */
const ENUMERATION = new Intl.ListFormat('en-GB');

/** Says what is in the way. The guard in the transaction decides; this is for people. */
async function mustBeEmpty(db: Kysely<Database>, kind: NamedKind, row: NamedRow): Promise<void> {
  const found: string[] = [];
  for (const { table, column, noun } of INSIDE[kind]) {
    const query = db
      .selectFrom(table as 'vm')
      .where(column as 'zone_id', '=', row.id)
      .where('deleted_at', 'is', null);
    const { n } = await query.select((eb) => eb.fn.countAll<number>().as('n')).executeTakeFirstOrThrow();
    if (Number(n) === 0) continue;
    const some = await query.select('name').orderBy('id').limit(NAMES_SHOWN).execute();
    const names = some.map((r) => r.name).join(', ');
    found.push(`${n} ${noun[Number(n) === 1 ? 0 : 1]} (${names}${Number(n) > NAMES_SHOWN ? ', …' : ''})`);
  }
  if (found.length === 0) return;
  throw new VirtgraphError({
    code: 'NOT_EMPTY',
    message: `The ${NOUN[kind]} ${row.name} still has ${ENUMERATION.format(found)}.`,
    path: ['id'],
  });
}

/** enable, disable and delete of one kind, by the names of their mutations. */
export const switches = (kind: NamedKind, noun: string) => ({
  enable: switchTo(kind, `enable${noun}`, 'ENABLED'),
  disable: switchTo(kind, `disable${noun}`, 'DISABLED'),
  remove: remove(kind, `delete${noun}`),
});
