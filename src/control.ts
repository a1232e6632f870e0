import { randomBytes, timingSafeEqual } from 'node:crypto';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import { Gauge, Registry } from 'prom-client';
import { type Core, createCore } from './core.ts';
import { isOutage, unavailable } from './db/failure.ts';
import { migrate } from './db/migrate.ts';
import { principalOf } from './db/principal.ts';
import { mustBeKeyOf, readSealingKey } from './db/sealer.ts';
import { readOrMakeSecret } from './db/secret-file.ts';
import { type Actor, IDENTITIES, restsOn } from './domain/authorize.ts';
import { VirtgraphError } from './domain/errors.ts';
import { costOf } from './graphql/cost.ts';
import { toGraphQLError } from './graphql/errors.ts';
import { PUBLIC_FIELDS } from './graphql/public-fields.ts';
import { schema } from './graphql/schema.ts';
import { Watch } from './graphql/watch.ts';
import { hostdContext } from './hostd-api/caller.ts';
import type { HostdParts } from './hostd-api/context.ts';
import { hostdSchema } from './hostd-api/schema.ts';
import { secretHash } from './hosts/identities.ts';
import { type HttpServer, type Program, startHttp } from './http/server.ts';
import { auditCounters } from './loops/audit.ts';
import { sealAudit } from './loops/audit-seal.ts';
import { warnOfExpiry } from './loops/certificate-expiry.ts';
import { Loops } from './loops/every.ts';
import { Liveness } from './loops/liveness.ts';
import { Retention } from './loops/retention.ts';
import { exportAudit } from './ops/audit-export.ts';
import { finishOidcSignIn } from './ops/oidc-sign-in.ts';
import { type PeerContext, peerSchema } from './peer-api/schema.ts';

export interface ControlOptions {
  databaseUrl: string;
  host: string;
  /** 0: any that is free. */
  port: number;
  /** Where hosts are listened to, by TLS; default: the same address, and any port that is free. */
  hosts?: { host?: string; port: number };
  /** How long a host's certificate holds. */
  hostCertificateMs?: number;
  /** Where the root admin's token is kept; made at the first start. */
  adminTokenPath: string;
  /** Where the key of sealed secrets is kept, made at the first start; default: beside the admin token. */
  sealingKeyPath?: string;
  log: Logger;
  heartbeatMs?: number;
  /** How often other processes' commits are looked for. */
  feedMs?: number;
  /** For how long the audit trail is kept. */
  auditDays?: number;
  /** Web origins that may ask beside our own. */
  origins?: string[];
  /** Networks of reverse proxies whose word about the client's address counts. */
  trustedProxies?: string[];
  /** What may be reached inside, as `Egress` takes it; default: nothing. */
  egressAllow?: string;
  /** URL at which browsers reach this one; default: where it listens. */
  publicUrl?: string;
  /** URL at which other control planes reach this one; default: where it listens. */
  advertise?: string;
}

export interface Control {
  core: Core;
  http: HttpServer;
  /** Lets requests and writes end, hands over to whoever is left. VMs and jobs go on. */
  close(): Promise<void>;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** One control plane: migrates the database, serves, and does its share of the periodic work. */
export async function startControl(options: ControlOptions): Promise<Control> {
  const { log, databaseUrl } = options;
  const adminToken = await readAdminToken(options.adminTokenPath);
  const core = createCore({
    databaseUrl,
    sealingKey: await readSealingKey(options.sealingKeyPath ?? join(dirname(options.adminTokenPath), 'sealing-key')),
    egressAllow: options.egressAllow ?? '',
    log,
    ...(options.heartbeatMs === undefined ? {} : { heartbeatMs: options.heartbeatMs }),
    ...(options.hostCertificateMs === undefined ? {} : { hostCertificateMs: options.hostCertificateMs }),
  });
  const migrations = await migrate(core.patientDb);
  if (migrations.length > 0) log.info({ migrations }, 'database migrated');
  await mustBeKeyOf(core.db, core.sealer);
  await ensureAdminToken(core, adminToken);
  await core.start();

  const peerSecret = randomBytes(32).toString('base64url');
  const metrics = new Registry();
  measure(core, metrics);
  const watch = new Watch({ db: core.db, feed: core.feed, agent: core.agent, log });
  const actorOf = authenticator(core);
  const certificate = await core.authority.issueToControlPlane();
  const http = await startHttp({
    host: options.host,
    port: options.port,
    schema,
    costOf: (...query) => costOf(...query).cost,
    toGraphQLError: (error, requestId) => toGraphQLError(error, requestId, log),
    authenticate: actorOf,
    contextFor: (caller) => ({ ...core, ...caller, watch, actorOf }),
    used: (actor) => actor.kind === 'user' && core.credentialUse.used(actor.credential),
    publicFields: PUBLIC_FIELDS,
    programs: [
      {
        path: '/peer',
        schema: peerSchema,
        contextFor: async (parameters) => peerContext(core, parameters, peerSecret),
      },
    ],
    downloads: [
      {
        path: '/audit.jsonl',
        mediaType: 'application/jsonl; charset=utf-8',
        fileName: 'audit.jsonl',
        cost: 500,
        open: (actor, query) => exportAudit(core.db, actor, query),
      },
    ],
    finishSignIn: (query, pending, via) => finishOidcSignIn(core.opsContext, query, pending, via),
    secure: {
      host: options.hosts?.host ?? options.host,
      port: options.hosts?.port ?? 0,
      certificate,
      authority: core.authority.certificate,
      programs: [hostdProgram(core, log)],
    },
    ready: () => notReady(core),
    log,
    metrics,
    origins: options.origins ?? [],
    trustedProxies: options.trustedProxies ?? [],
  });

  core.opsContext.site.publicUrl = options.publicUrl ?? http.url;

  // Before the feed's other listeners have read anything: what is revoked hears of nothing that came after.
  core.feed.listen((changes) => {
    const identities = changes.filter(({ kind }) => (IDENTITIES as readonly string[]).includes(kind));
    if (identities.length > 0) http.revoke((actor) => identities.some((change) => restsOn(actor, change)));
  });

  const liveness = new Liveness({
    db: core.db,
    writer: core.writer,
    processId: core.processId,
    url: options.advertise ?? http.url,
    peerSecret,
    log,
  });
  await liveness.renew();
  const loops = startLoops(core, liveness, options);
  loops.every('control-certificate', HOUR, renewing(core, http, certificate.renewAt));
  return {
    core,
    http,
    async close() {
      core.sessions.leave();
      await http.close();
      await loops.stop();
      await watch.close();
      await core.close();
    },
  };
}

function startLoops(core: Core, liveness: Liveness, options: ControlOptions): Loops {
  const { log } = options;
  const loops = new Loops(log);
  const retention = new Retention({
    db: core.patientDb,
    ops: core.opsContext,
    log,
    recoverableMs: DAY,
    eventDays: 90,
    auditDays: options.auditDays ?? 365,
  });
  loops.every('feed', options.feedMs ?? 50, () => core.feed.tail());
  loops.every('claim', 500, () => core.engine.claimDue());
  loops.every('lease', 3_000, () => liveness.renew());
  loops.every('links', 5_000, () => liveness.sweep());
  loops.every('heartbeats', 2_000, async () => {
    core.sessions.expire();
    core.connections.sweep((hostId) => core.inventory.get('host', hostId)?.certificate_floor);
  });
  loops.every('inventory', 30_000, () => core.inventory.load());
  loops.every('reconcile', 30_000, () => core.reconciler.settle(null));
  loops.every('usage', 15_000, () => core.usage.flush());
  loops.every('credential use', 15_000, () => core.credentialUse.flush());
  loops.every('retention', 60_000, () => retention.round());
  loops.every('audit-seal', 5_000, () => sealAudit({ db: core.db, writer: core.writer, log }, MINUTE));
  loops.every('certificate-expiry', 10 * MINUTE, () => warnOfExpiry(core.db, core.writer));
  loops.every('audit', HOUR, async () => {
    const drift = await auditCounters(core.patientDb);
    if (drift.length > 0) log.error({ drift }, 'counters differ from what they count');
  });
  return loops;
}

async function readAdminToken(path: string): Promise<string> {
  const token = await readOrMakeSecret(path, () => `vg_${randomBytes(32).toString('base64url')}`);
  // Whoever could guess it would be root.
  if (/^\S{32,}$/.test(token)) return token;
  throw new Error(`${path} holds no admin token. Put the token back, or delete the file to have a new one made.`);
}

/** Only its hash is in the database; the file is the operator's copy. */
async function ensureAdminToken(core: Core, token: string): Promise<void> {
  await core.db
    .insertInto('api_token')
    .values({ id: await core.opsContext.ids.take(), name: 'root', role: 'ROOT_ADMIN', token_hash: secretHash(token) })
    .onDuplicateKeyUpdate({ name: 'root' })
    .execute();
}

const anonymous: Actor = { kind: 'anonymous' };

function authenticator(core: Core): (token: string | null) => Promise<Actor> {
  return async (token) => {
    if (token === null) return anonymous;
    return principalOf(core.db, secretHash(token)).catch((error: unknown) => {
      throw isOutage(error) ? unavailable(error) : error;
    });
  };
}

const bearerOf = (parameters: Record<string, unknown>): string | null =>
  /^Bearer (\S+)$/.exec(String(parameters['authorization'] ?? ''))?.[1] ?? null;

/** Another control plane shows the secret that this one wrote into the database: it may ask for hosts linked here. */
function peerContext(core: Core, parameters: Record<string, unknown>, secret: string): PeerContext {
  const shown = bearerOf(parameters);
  if (shown === null || !timingSafeEqual(secretHash(shown), secretHash(secret))) throw unknownCaller();
  return { agent: core.linkedAgent };
}

function hostdProgram(core: Core, log: Logger): Program {
  const { connections, engine, linkedAgent: agent } = core;
  const answer: HostdParts['answer'] = (...told) => engine.answer(...told);
  const parts: HostdParts = { ...core, agent, answer, log };
  return {
    path: '/hostd',
    schema: hostdSchema,
    contextFor: (_parameters, request, socket) => hostdContext(parts, connections, request, socket),
  };
}

/** A round that issues this control plane's own certificate anew, long before it ends. */
function renewing(core: Core, http: HttpServer, first: Date): () => Promise<void> {
  let renewAt = first;
  return async () => {
    if (Date.now() < renewAt.getTime()) return;
    const certificate = await core.authority.issueToControlPlane();
    http.secure?.useCertificate(certificate);
    ({ renewAt } = certificate);
  };
}

const unknownCaller = (): VirtgraphError =>
  new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'Nobody has this credential.' });

async function notReady(core: Core): Promise<string[]> {
  try {
    await core.db.selectFrom('feed_head').select('seq').executeTakeFirstOrThrow();
    return [];
  } catch {
    return ['The database does not answer.'];
  }
}

function measure(core: Core, registry: Registry): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name: `virtgraph_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  const { writer, engine, links } = core;
  gauge('host_links', 'Hosts linked to this process', () => links.size);
  gauge('writer_transactions', 'Transactions committed by the writer', () => writer.counts.transactions);
  gauge('writer_transitions', 'Transitions committed by the writer', () => writer.counts.transitions);
  gauge('writer_retries', 'Transactions that were tried again', () => writer.counts.retries);
  gauge(
    'writer_refused',
    'Transitions refused by a guard',
    () => writer.counts.stale + writer.counts.full + writer.counts.gone,
  );
  gauge('job_answers', 'Answers of hosts to steps of jobs', () => engine.counts.answers);
  gauge('job_claims', 'Jobs taken up after their time had run out', () => engine.counts.claims);
}
