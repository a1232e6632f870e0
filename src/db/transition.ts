import type { Insertable, Selectable } from 'kysely';
import type { IDENTITIES } from '../domain/authorize.ts';
import type { ResourceKind } from '../domain/ids.ts';
import type { JobView } from '../domain/job.ts';
import type { AuditOutcome, FieldChange, TargetKind } from '../domain/kinds.ts';
import { type Charge, minus, type QuotaOwner, type QuotaTable, quotaTable } from '../domain/quota.ts';
import type { Database } from './tables.ts';

/**
 * A transition is everything that one move of one thing writes: plain data, no I/O.
 *
 * The writer merges the transitions of many jobs and mutations into a few statements, so the order of locks is decided
 * in one file (statements.ts) and not by each author.
 */
export interface Transition {
  writes: Write[];
  /** Resources that subscribers must read again after the commit. */
  changes: Change[];
  events: NewEvent[];
  /** Who asked for it, for the audit trail; or for what was refused, and then there is nothing else. */
  audits: NewAudit[];
  /** Told to the process's own listeners after the commit: hosts that have a new command. */
  commands: OpenCommand[];
  /** Jobs as they stand after it, for the process that wrote it to remember. */
  jobs: JobView[];
}

export interface Change {
  kind: ResourceKind | 'command' | QuotaTable;
  id: number;
}

export interface NewEvent {
  type: string;
  subject: { kind: TargetKind; id: number };
  /** Whose the subject is; without it only operators may know of it. */
  accountId?: number | null;
  jobId: number | null;
  actor: string;
  reason: string | null;
  changes: FieldChange[];
}

/** A line of the audit trail. Never a secret, and of what was refused nothing but what it was about. */
export interface NewAudit {
  /** The mutation's name, or `signIn` and the like. */
  action: string;
  outcome: AuditOutcome;
  /** The error's, of what was refused. */
  code: string | null;
  actor: string;
  userId: number | null;
  /** What the actor showed: `api-key:<id>`, `session:<id>`. */
  credential: string | null;
  /** Where it came from, as text of an IP address. */
  address: string | null;
  /** Whose it is, so who of tenants may read it; null: operators alone. */
  accountId: number | null;
  subject: { kind: ResourceKind; id: number } | null;
  /** The public id that was asked for, whether or not there is such an object. */
  askedId?: string | null;
  jobId: number | null;
  reason: string | null;
  changes: FieldChange[];
  requestId: string | null;
}

/** A step that a host has to do, as it stands in `job_step`. */
export interface OpenCommand {
  jobId: number;
  seq: number;
  hostId: number;
  command: string;
  vmEpoch: number;
  timeoutMs: number;
  /** JSON */
  payload: string;
}

export type Table = keyof Database;
/** Tables whose rows are patched by a number. Steps are found by their job's, with `seq` among the guards. */
export type PatchTable =
  | 'job'
  | 'job_step'
  | 'vm'
  | 'volume'
  | 'template'
  | 'zone'
  | 'pod'
  | 'cluster'
  | 'host'
  | 'primary_storage'
  | 'offering'
  | 'host_join_token'
  | 'host_certificate'
  | QuotaTable
  | (typeof IDENTITIES)[number];

/** A value that the database computes. */
export type Computed =
  | { is: 'now' }
  /** Now plus so many milliseconds. */
  | { is: 'in'; ms: number }
  /** The column's own value plus this. */
  | { is: 'plus'; amount: number }
  /** The column's own value, or this if it is larger. */
  | { is: 'atLeast'; value: number };

export const now: Computed = { is: 'now' };
export const inMs = (ms: number): Computed => ({ is: 'in', ms: Math.round(ms) });
export const plus = (amount: number): Computed => ({ is: 'plus', amount });
export const atLeast = (value: number): Computed => ({ is: 'atLeast', value });

type Row<T extends Table> = Selectable<Database[T]>;
export type Settable<T extends Table> = { [K in keyof Row<T>]?: Row<T>[K] | Computed };
/** Equal to the value, or to one of a list. */
export type Guard<T extends Table> = { [K in keyof Row<T>]?: Row<T>[K] | readonly Row<T>[K][] };

export type Write = Insert | Patch | Rebase | Take | ChargeAccount | Hold | Remove | Absent | Expect;

/** What it means that a guarded write hit fewer rows than it must. */
export type Refusal = 'stale' | 'full' | 'gone';

export interface Insert {
  op: 'insert';
  table: Table;
  row: Record<string, unknown>;
  /** The row may stand already, which is as good. */
  orExists: boolean;
}

/** Changes one row, if it still is as its author saw it. */
export interface Patch {
  op: 'patch';
  table: PatchTable;
  id: number;
  guard: Record<string, unknown>;
  set: Record<string, unknown>;
  otherwise: Refusal;
}

/** Domains that are below one that moves, and the accounts in them all, stand elsewhere from now on. */
export interface Rebase {
  op: 'rebase';
  /** Paths of the domain that moves. */
  from: string;
  to: string;
}

/** Takes room from a counted resource (or gives it back, negative), never beyond its cap. */
export interface Take {
  op: 'take';
  table: 'host' | 'primary_storage' | 'host_join_token' | QuotaTable;
  id: number;
  /** Of an account's quota: the path of the domain that it is counted in. */
  place?: string;
  /** By what is counted: vcpus, memoryMib, bytes, hosts, and what a charge names. */
  amounts: Record<string, number>;
}

/**
 * Takes of the quota of an account and of every domain above it, or gives back (negative). The writer, which knows where
 * accounts stand, makes takes of it: what charges need not know the tree, nor a job remember what it was.
 */
export interface ChargeAccount {
  op: 'charge';
  accountId: number;
  charge: Charge;
}

/** Locks a parent, shared, that must live until this is committed; and be enabled, where that matters. */
export interface Hold {
  op: 'hold';
  table:
    | 'domain'
    | 'account'
    | 'role'
    | 'user'
    | 'identity_provider'
    | 'zone'
    | 'pod'
    | 'cluster'
    | 'offering'
    | 'template'
    | 'primary_storage';
  id: number;
  enabled: boolean;
  /** What must be as its author saw it, too: until the commit nobody changes it. */
  guard: Record<string, unknown>;
}

/**
 * Nothing that lives may be inside, but for one, or no more than so much. Holds once the parent is locked, for whoever
 * puts something in holds it too.
 */
export interface Absent {
  op: 'absent';
  table:
    | 'pod'
    | 'cluster'
    | 'host'
    | 'primary_storage'
    | 'template'
    | 'vm'
    | 'volume'
    | 'domain'
    | 'account'
    | 'user'
    | 'api_key'
    | 'project_member'
    | 'session'
    | 'identity_provider';
  column: string;
  id: number;
  /** So many may be. */
  beside: number;
  /** The id of what may be there. */
  except: number | null;
}

/**
 * A row that must be as its author saw it, read without a lock: another may change it until the commit. For facts that
 * are stale rather than wrong when that happens, where a lock would make a hot row wait.
 */
export interface Expect {
  op: 'expect';
  table: 'host' | 'cluster';
  id: number;
  guard: Record<string, unknown>;
}

export interface Remove {
  op: 'remove';
  table: 'reservation';
  key: Record<string, number>;
}

export function insert<T extends Table>(
  table: T,
  row: { [K in keyof Insertable<Database[T]>]: Insertable<Database[T]>[K] | Computed },
): Insert {
  return { op: 'insert', table, row, orExists: false };
}

/** A row that says nothing but that it is there. */
export const insertOnce: typeof insert = (table, row) => ({ ...insert(table, row), orExists: true });

export function patch<T extends PatchTable>(
  table: T,
  id: number,
  guard: Guard<T>,
  set: Settable<T>,
  otherwise: Refusal = 'stale',
): Patch {
  return {
    op: 'patch',
    table,
    id,
    guard: guard as Record<string, unknown>,
    set: set as Record<string, unknown>,
    otherwise,
  };
}

export const takeHost = (id: number, vcpus: number, memoryMib: number): Take => ({
  op: 'take',
  table: 'host',
  id,
  amounts: { vcpus, memoryMib },
});

export const takeStorage = (id: number, bytes: number): Take => ({
  op: 'take',
  table: 'primary_storage',
  id,
  amounts: { bytes },
});

/** One of the hosts that a join token admits, while it has not expired. */
export const takeJoin = (tokenId: number): Take => ({
  op: 'take',
  table: 'host_join_token',
  id: tokenId,
  amounts: { hosts: 1 },
});

export const chargeAccount = (accountId: number, charge: Charge): ChargeAccount => ({
  op: 'charge',
  accountId,
  charge,
});
export const refundAccount = (accountId: number, charge: Charge): ChargeAccount =>
  chargeAccount(accountId, minus(charge));
/** @param place of an account's quota: where whoever charges it believes the account to stand */
export const takeQuota = (owner: QuotaOwner, charge: Charge, place?: string): Take => ({
  op: 'take',
  table: quotaTable(owner),
  id: owner.id,
  ...(place === undefined ? {} : { place }),
  amounts: charge,
});

export const hold = (table: Hold['table'], id: number): Hold => ({
  op: 'hold',
  table,
  id,
  enabled: false,
  guard: {},
});
export const holdEnabled = (table: Hold['table'], id: number): Hold => ({ ...hold(table, id), enabled: true });
/** A parent that must still be as its author saw it: STALE where it is not. */
export const holdAsSeen = <T extends Hold['table']>(table: T, id: number, guard: Guard<T>): Hold => ({
  ...hold(table, id),
  guard: guard as Record<string, unknown>,
});
/** A domain that must also stand where its reader saw it: what is made in it has its path. */
export const holdDomainAt = ({ id, path }: { id: number; path: string }): Hold => holdAsSeen('domain', id, { path });
export const rebase = (from: string, to: string): Rebase => ({ op: 'rebase', from, to });
export const expect = <T extends Expect['table']>(table: T, id: number, guard: Guard<T>): Expect => ({
  op: 'expect',
  table,
  id,
  guard: guard as Record<string, unknown>,
});
export const absent = (table: Absent['table'], column: string, id: number, except: number | null = null): Absent => ({
  op: 'absent',
  table,
  column,
  id,
  beside: 0,
  except,
});
/** Before what is inserted beside it; exact where the parent is patched, for a hold lets others count at the same time. */
export const fewerThan = (table: Absent['table'], column: string, id: number, max: number): Absent => ({
  ...absent(table, column, id),
  beside: max - 1,
});

export const removeReservation = (vmId: number, hostId: number): Remove => ({
  op: 'remove',
  table: 'reservation',
  key: { vm_id: vmId, host_id: hostId },
});

export const emptyTransition = (): Transition => ({
  writes: [],
  changes: [],
  events: [],
  audits: [],
  commands: [],
  jobs: [],
});

/** One transition of several: all of them are written, or none. */
export const merged = (...all: Transition[]): Transition => ({
  writes: all.flatMap((t) => t.writes),
  changes: all.flatMap((t) => t.changes),
  events: all.flatMap((t) => t.events),
  audits: all.flatMap((t) => t.audits),
  commands: all.flatMap((t) => t.commands),
  jobs: all.flatMap((t) => t.jobs),
});

/** What became of a transition. Only `written` means that it is committed. */
export type Outcome =
  | { kind: 'written' }
  /** Something is no longer as its author saw it: forget and read again. */
  | { kind: 'stale' }
  /** A host or storage has no room after all, or a quota is reached. */
  | { kind: 'full' }
  /** A parent was deleted or disabled meanwhile. */
  | { kind: 'gone' }
  /** A unique key stands already; `key` is its name. */
  | { kind: 'duplicate'; key: string };
