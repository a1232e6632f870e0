import type { Kysely } from 'kysely';
import type { Tenancy } from '../domain/authorize.ts';
import type { PlacementHost, PlacementStorage } from '../domain/placement.ts';
import { ownersOf, type QuotaOwner, quotaTable } from '../domain/quota.ts';
import { QuotaBook } from './quota-book.ts';
import type {
  Account,
  Cluster,
  Database,
  Domain,
  Host,
  Offering,
  Pod,
  PrimaryStorage,
  Quota,
  Role,
  Template,
  Zone,
} from './tables.ts';
import type { Change, Write } from './transition.ts';

/** The kinds that change by the hand of an operator, so that a process can hold them all. */
interface Held {
  zone: Zone;
  pod: Pod;
  cluster: Cluster;
  host: Host;
  primary_storage: PrimaryStorage;
  offering: Offering;
  template: Template;
  domain: Domain;
  account: Account;
  account_quota: Quota;
  domain_quota: Quota;
  role: Role;
}
type HeldKind = keyof Held;
const KINDS: HeldKind[] = [
  'zone',
  'pod',
  'cluster',
  'host',
  'primary_storage',
  'offering',
  'template',
  'domain',
  'account',
  'account_quota',
  'domain_quota',
  'role',
];
/** Held when they are deleted too: what was theirs is still shown to those above. */
const FOR_EVER: HeldKind[] = ['domain', 'account', 'account_quota', 'domain_quota'];
const isHeld = (kind: string): kind is HeldKind => (KINDS as string[]).includes(kind);

interface Room {
  vcpus: number;
  memoryMib: number;
  bytes: number;
}
type RoomOwner = { host: number; storage: number | null };

class Shelf<T extends { id: number; uid?: Buffer }> {
  readonly byId = new Map<number, T>();
  readonly byUid = new Map<string, T>();

  put(row: T): void {
    this.byId.set(row.id, row);
    if (row.uid) this.byUid.set(row.uid.toString('hex'), row);
  }

  drop(id: number): void {
    const row = this.byId.get(id);
    if (!row) return;
    this.byId.delete(id);
    if (row.uid) this.byUid.delete(row.uid.toString('hex'));
  }
}

/**
 * What this process believes of the hierarchy, its capacity and what VMs are made of. Read once, then kept up by the
 * change feed. Only a hint: guarded writes decide, so a wrong belief costs a refused transaction, never over-commitment.
 */
export class Inventory implements Tenancy {
  readonly #db: Kysely<Database>;
  readonly #shelves: { [K in HeldKind]: Shelf<Held[K]> } = {
    zone: new Shelf(),
    pod: new Shelf(),
    cluster: new Shelf(),
    host: new Shelf(),
    primary_storage: new Shelf(),
    offering: new Shelf(),
    template: new Shelf(),
    domain: new Shelf(),
    account: new Shelf(),
    account_quota: new Shelf(),
    domain_quota: new Shelf(),
    role: new Shelf(),
  };
  readonly quotas = new QuotaBook(
    (owner) => this.get(quotaTable(owner), owner.id),
    () => this.refresh(),
  );
  /** `<template>.<storage>` of the copies that are prepared. */
  #copies = new Set<string>();
  /** Room that transactions of this process are about to take. */
  readonly #pendingHost = new Map<number, Room>();
  readonly #pendingStorage = new Map<number, number>();
  readonly #stale = new Map<HeldKind, Set<number>>();
  #refreshing: Promise<void> | undefined;
  #reading: Promise<void> = Promise.resolve();

  constructor(db: Kysely<Database>) {
    this.#db = db;
  }

  async load(): Promise<void> {
    for (const kind of KINDS) await this.#read(kind, null);
    await this.#readCopies();
  }

  get<K extends HeldKind>(kind: K, id: number): Held[K] | undefined {
    return this.#shelves[kind].byId.get(id);
  }

  byUid<K extends HeldKind>(kind: K, uid: Buffer): Held[K] | undefined {
    return this.#shelves[kind].byUid.get(uid.toString('hex'));
  }

  all<K extends HeldKind>(kind: K): Iterable<Held[K]> {
    return this.#shelves[kind].byId.values();
  }

  domainPathOf(accountId: number): string | undefined {
    const account = this.get('account', accountId);
    return account && this.get('domain', account.domain_id)?.path;
  }

  /** Resolves once it has these accounts: another process may have made one a moment ago. */
  async know(accountIds: Iterable<number | null>): Promise<void> {
    const unknown = [...new Set(accountIds)].filter((id) => id !== null && this.domainPathOf(id) === undefined);
    if (unknown.length > 0) await this.recall(unknown as number[]);
  }

  /** Reads anew where accounts stand. */
  async recall(accountIds: number[]): Promise<void> {
    await this.#read('account', accountIds);
    const domainIds = accountIds.flatMap((id) => this.get('account', id)?.domain_id ?? []);
    if (domainIds.length > 0) await this.#read('domain', domainIds);
  }

  hasCopy(templateId: number, storageId: number): boolean {
    return this.#copies.has(`${templateId}.${storageId}`);
  }

  /** To be called with every change that is told; the rows are read again soon after, many at a time. */
  changed(changes: Change[]): void {
    for (const { kind, id } of changes) {
      if (!isHeld(kind)) continue;
      const ids = this.#stale.get(kind);
      if (ids) ids.add(id);
      else this.#stale.set(kind, new Set([id]));
    }
    if (this.#stale.size > 0) void this.refresh();
  }

  /** Reads anew what a refused transition relied on: others have taken or switched it, and the feed may not say so yet. */
  doubt(writes: readonly Write[]): Promise<void> {
    const relied = writes.filter((w) => w.op === 'take' || w.op === 'hold');
    this.changed(relied.map((w) => ({ kind: w.table as Change['kind'], id: w.id })));
    return this.recountQuotas(writes.flatMap((w) => (w.op === 'charge' ? ownersOf(w.accountId, this) : [])));
  }

  /** Reads these quotas anew. */
  recountQuotas(owners: readonly QuotaOwner[]): Promise<void> {
    this.changed(owners.map((owner) => ({ kind: quotaTable(owner), id: owner.id })));
    return this.refresh();
  }

  /** Reads all room anew: nobody is refused for what this process only believes. */
  recount(): Promise<void> {
    const owners = ['host', 'primary_storage'] as const;
    this.changed(owners.flatMap((kind) => [...this.all(kind)].map(({ id }) => ({ kind, id }))));
    return this.refresh();
  }

  /** Nothing that was told waits to be read or is being read: what is not here does not exist. */
  get isFresh(): boolean {
    return this.#stale.size === 0 && this.#refreshing === undefined;
  }

  /** Resolves when all changes that were told so far are read. A failed read is tried again with the next. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#readStale().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #readStale(): Promise<void> {
    while (this.#stale.size > 0) {
      const [kind, ids] = this.#stale.entries().next().value!;
      this.#stale.delete(kind);
      try {
        await this.#read(kind, [...ids]);
        if (kind === 'template') await this.#readCopies();
      } catch {
        // The database is away: keep what is known to be stale, and let the next change or the sweep try again.
        const again = this.#stale.get(kind);
        this.#stale.set(kind, again ? again.union(ids) : ids);
        return;
      }
    }
  }

  /** One after the other: an answer that a newer one has overtaken would put back what is over. */
  #inTurn(read: () => Promise<void>): Promise<void> {
    this.#reading = this.#reading.then(read, read);
    return this.#reading;
  }

  #read<K extends HeldKind>(kind: K, ids: number[] | null): Promise<void> {
    return this.#inTurn(() => this.#readNow(kind, ids));
  }

  async #readNow<K extends HeldKind>(kind: K, ids: number[] | null): Promise<void> {
    let query = this.#db.selectFrom(kind as 'zone').selectAll();
    if (!FOR_EVER.includes(kind)) query = query.where('deleted_at', 'is', null);
    if (ids) query = query.where('id', 'in', ids);
    const rows = (await query.execute()) as unknown as Held[K][];
    const shelf = this.#shelves[kind] as Shelf<Held[K]>;
    const found = new Set(rows.map((row) => row.id));
    for (const id of ids ?? [...shelf.byId.keys()]) if (!found.has(id)) shelf.drop(id);
    for (const row of rows) shelf.put(row);
  }

  #readCopies(): Promise<void> {
    return this.#inTurn(async () => {
      const rows = await this.#db.selectFrom('template_copy').select(['template_id', 'primary_storage_id']).execute();
      this.#copies = new Set(rows.map((row) => `${row.template_id}.${row.primary_storage_id}`));
    });
  }

  *placementHosts(): Generator<PlacementHost> {
    for (const host of this.all('host')) {
      const pending = this.#pendingHost.get(host.id);
      yield {
        id: host.id,
        name: host.name,
        clusterId: host.cluster_id,
        zoneId: host.zone_id,
        wantedState: host.wanted_state,
        parentsEnabled: this.#parentsEnabled(host),
        linkState: host.link_state,
        vcpusFree: host.vcpus_cap - host.vcpus_used - (pending?.vcpus ?? 0),
        vcpusCap: host.vcpus_cap,
        memoryFreeMib: host.memory_cap_mib - host.memory_used_mib - (pending?.memoryMib ?? 0),
        memoryCapMib: host.memory_cap_mib,
      };
    }
  }

  *placementStorages(): Generator<PlacementStorage> {
    for (const storage of this.all('primary_storage')) {
      yield {
        id: storage.id,
        name: storage.name,
        clusterId: storage.cluster_id,
        enabled: storage.wanted_state === 'ENABLED',
        bytesFree: storage.bytes_cap - storage.bytes_used - (this.#pendingStorage.get(storage.id) ?? 0),
        bytesCap: storage.bytes_cap,
      };
    }
  }

  /** Holds room while a transaction that takes it is under way. Call the result when it has ended. */
  reserve(owner: RoomOwner, room: Room): (taken: boolean) => void {
    this.#pend(owner, room, 1);
    return (taken) => {
      this.#pend(owner, room, -1);
      if (!taken) return;
      // Until the feed has brought the row anew.
      const host = this.get('host', owner.host);
      if (host) {
        host.vcpus_used += room.vcpus;
        host.memory_used_mib += room.memoryMib;
      }
      const storage = owner.storage === null ? undefined : this.get('primary_storage', owner.storage);
      if (storage) storage.bytes_used += room.bytes;
    };
  }

  #pend(owner: RoomOwner, room: Room, sign: 1 | -1): void {
    const held = this.#pendingHost.get(owner.host) ?? { vcpus: 0, memoryMib: 0, bytes: 0 };
    held.vcpus += sign * room.vcpus;
    held.memoryMib += sign * room.memoryMib;
    this.#pendingHost.set(owner.host, held);
    if (owner.storage === null) return;
    this.#pendingStorage.set(owner.storage, (this.#pendingStorage.get(owner.storage) ?? 0) + sign * room.bytes);
  }

  #parentsEnabled(host: Host): boolean {
    return (
      this.get('cluster', host.cluster_id)?.wanted_state === 'ENABLED' &&
      this.get('pod', host.pod_id)?.wanted_state === 'ENABLED' &&
      this.get('zone', host.zone_id)?.wanted_state === 'ENABLED'
    );
  }
}
