import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { Pool } from 'mysql2';
import type { Logger } from 'pino';
import { CredentialUse } from './db/credential-use.ts';
import { Feed } from './db/feed.ts';
import { Ids } from './db/ids.ts';
import { Inventory } from './db/inventory.ts';
import { ANSWER_WITHIN, openDatabase, openPool } from './db/pool.ts';
import { Sealer } from './db/sealer.ts';
import { distinctChanges, uncertainChanges } from './db/statements.ts';
import type { Database } from './db/tables.ts';
import { Writer } from './db/writer.ts';
import { Egress } from './egress/egress.ts';
import { LinkedHostAgent } from './hosts/agent.ts';
import { HostAuthority } from './hosts/authority.ts';
import { CommandOwners } from './hosts/command-owners.ts';
import { HostConnections } from './hosts/connections.ts';
import { HostIdentities } from './hosts/identities.ts';
import { HostLinks } from './hosts/links.ts';
import { Observations } from './hosts/observations.ts';
import { PeerHostAgent } from './hosts/peer-agent.ts';
import { ProgressBoard } from './hosts/progress.ts';
import { HostRefusals, ofOthers } from './hosts/refusals.ts';
import { HostSessions } from './hosts/sessions.ts';
import { UsageBoard } from './hosts/usage.ts';
import { Engine } from './jobs/engine.ts';
import { Reconciler } from './loops/reconcile.ts';
import type { OpsContext } from './ops/context.ts';
import { bindOps, compoundJobs, type Ops } from './ops/ops.ts';
import { PasswordHasher } from './ops/password-hash.ts';
import { SignInLimits } from './ops/sign-in-limits.ts';

export interface CoreOptions {
  databaseUrl: string;
  /** 32 bytes, the same for all control planes of a database. */
  sealingKey: Buffer;
  /** What may be reached inside; default: nothing. */
  egressAllow?: string;
  log: Logger;
  heartbeatMs?: number;
  /** How long a host's certificate holds. */
  hostCertificateMs?: number;
  /** Connections for everything but the writer, which has its own. */
  readConnections?: number;
}

/** Everything of a control plane but its loops and its port. */
export interface Core {
  /** Names this run of the process: a restart is another owner. */
  processId: string;
  db: Kysely<Database>;
  /** The same without limits of time: for migrations and audits. */
  patientDb: Kysely<Database>;
  sealer: Sealer;
  feed: Feed;
  inventory: Inventory;
  writer: Writer;
  engine: Engine;
  links: HostLinks;
  progress: ProgressBoard;
  /** Hosts linked here. */
  linkedAgent: LinkedHostAgent;
  /** Every host. */
  agent: PeerHostAgent;
  observations: Observations;
  usage: UsageBoard;
  credentialUse: CredentialUse;
  sessions: HostSessions;
  authority: HostAuthority;
  identities: HostIdentities;
  refusals: HostRefusals;
  commandOwners: CommandOwners;
  /** What hosts have open here. */
  connections: HostConnections;
  reconciler: Reconciler;
  opsContext: OpsContext;
  ops: Ops;
  /** Reads the inventory, opens the authority, and begins to follow the feed. */
  start(): Promise<void>;
  close(): Promise<void>;
}

const WRITER_CONNECTIONS = 2;

/** Wires the parts; nothing runs by itself before `start`. */
export function createCore(options: CoreOptions): Core {
  const {
    databaseUrl,
    sealingKey,
    egressAllow = '',
    log,
    heartbeatMs,
    hostCertificateMs,
    readConnections = 8,
  } = options;
  const processId = randomUUID();
  const sealer = new Sealer(sealingKey);
  const pools: Pool[] = [
    openPool(databaseUrl, { connections: readConnections }),
    openPool(databaseUrl, { connections: WRITER_CONNECTIONS, multipleStatements: true }),
  ];
  const db = openDatabase(pools[0]!, ANSWER_WITHIN);
  const patientDb = openDatabase(pools[0]!);
  const feed = new Feed(db, processId);
  const links = new HostLinks(db, log);
  const inventory = new Inventory(db);
  const ids = new Ids(db);

  const writer = new Writer({
    pool: pools[1]!.promise(),
    db,
    origin: processId,
    tenancy: inventory,
    isElsewhere: (hostId) => !links.has(hostId),
    onCommit(transitions) {
      try {
        // The engine first: it sends what the hosts wait for, and subscribers read what is committed anyway.
        engine.committed(transitions);
        feed.publish(distinctChanges(transitions), 'self');
      } catch (error) {
        // What is committed stays so, whatever its listeners make of it.
        log.error({ err: error }, 'a listener of commits failed');
      }
    },
    // The feed would name this process as the one that has told it, so nobody else does: as if others had written it.
    onUncertain: (transitions) => feed.publish(uncertainChanges(transitions), 'others'),
  });
  const catchUp = async (): Promise<void> => {
    await feed.catchUp();
    await inventory.refresh();
  };
  const progress = new ProgressBoard(writer, log);
  links.onGone((hostId) => progress.hostGone(hostId));
  const linkedAgent = new LinkedHostAgent(links, progress);
  const agent = new PeerHostAgent(db, links, linkedAgent);
  const engine = new Engine({
    db,
    writer,
    inventory,
    catchUp,
    deliver: (command) => links.deliver(command),
    round: (jobId) => compounds.round(jobId),
    owner: processId,
    log,
  });
  const reconciler = new Reconciler({ db, writer, ids, log });
  const logged = (what: string) => (error: unknown) => log.warn({ err: error }, what);
  const observations = new Observations({
    db,
    writer,
    log,
    changed: (vmIds) => void reconciler.settle(vmIds).catch(logged('VMs could not be settled; the sweep will')),
  });
  const refusals = new HostRefusals({ writer, log });
  const usage = new UsageBoard(db, (hostId, vmIds) => refusals.message({ id: hostId }, 'heartbeat', ofOthers(vmIds)));
  const authority = new HostAuthority({
    db,
    writer,
    sealer,
    ...(hostCertificateMs === undefined ? {} : { hostLifeMs: hostCertificateMs }),
  });
  const identities = new HostIdentities({ db, writer, ids, inventory, authority, refusals });
  const connections = new HostConnections();
  const sessions = new HostSessions({
    db,
    writer,
    inventory,
    links,
    observations,
    usage,
    refusals,
    processId,
    log,
    ...(heartbeatMs === undefined ? {} : { heartbeatMs }),
  });
  const opsContext: OpsContext = {
    db,
    writer,
    ids,
    inventory,
    sealer,
    authority,
    egress: new Egress(egressAllow),
    site: { publicUrl: '' },
    passwords: new PasswordHasher(),
    signInLimits: new SignInLimits(),
    catchUp,
    log,
  };

  const compounds = compoundJobs(opsContext);

  feed.listen((changes, from) => {
    inventory.changed(changes);
    const hosts = changes.filter((c) => c.kind === 'command').map((c) => c.id);
    if (hosts.length > 0)
      void links.sendOpen(hosts).catch(logged('open commands could not be read; they are asked for again'));
    const changedHosts = changes.filter((c) => c.kind === 'host' && connections.has(c.id)).map((c) => c.id);
    if (changedHosts.length > 0) void endUnaccepted(changedHosts);
    // Guards of jobs that others have moved would refuse what is remembered here: it is read anew.
    if (from === 'others') engine.forget(changes);
  });

  /** A host that was deleted, or whose certificate was revoked, is not spoken with any more. */
  async function endUnaccepted(hostIds: number[]): Promise<void> {
    await inventory.refresh();
    for (const id of hostIds) {
      const host = inventory.get('host', id);
      // A floor only rises, so what is read may be old but is never wrong; that there is no host may be.
      if (host) connections.accept(id, host.certificate_floor);
      else if (inventory.isFresh) connections.accept(id, null);
    }
  }

  return {
    processId,
    db,
    patientDb,
    sealer,
    feed,
    inventory,
    writer,
    engine,
    links,
    progress,
    linkedAgent,
    agent,
    observations,
    usage,
    credentialUse: new CredentialUse(db),
    sessions,
    authority,
    identities,
    refusals,
    commandOwners: new CommandOwners(db),
    connections,
    reconciler,
    opsContext,
    ops: bindOps(opsContext),
    async start() {
      await feed.start();
      await inventory.load();
      await authority.open();
    },
    async close() {
      await agent.close();
      await writer.drained();
      await Promise.all(pools.map((pool) => pool.promise().end()));
    },
  };
}
