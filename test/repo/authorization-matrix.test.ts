import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execute, parse, subscribe } from 'graphql';
import { sql } from 'kysely';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { encodeId, RESOURCE_KINDS, type ResourceKind } from '../../src/domain/ids.ts';
import { schema } from '../../src/graphql/schema.ts';
import { Watch } from '../../src/graphql/watch.ts';
import { secretHash } from '../../src/hosts/identities.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  insertAccount,
  insertApiKey,
  insertDomain,
  insertIdentityProvider,
  insertMember,
  insertRole,
  insertSession,
  insertUser,
  ROLE,
} from '../support/tenants.ts';
import {
  insertCluster,
  insertHost,
  insertJob,
  insertOffering,
  insertPod,
  insertStorage,
  insertTemplate,
  insertVm,
  insertVolume,
  insertZone,
  nextId,
  type Placed,
} from '../support/world.ts';
import { type FieldRow, type IdRow, type Ids, MUTATIONS, QUERIES, SUBSCRIPTIONS } from './authorization-matrix.ts';
import {
  type Answered,
  askUninvited,
  callOf,
  firstOf,
  idPaths,
  inputHas,
  post,
  rootFields,
  withAt,
} from './graph-probe.ts';

const MATRIX: Record<string, Record<string, FieldRow>> = {
  query: QUERIES,
  mutation: MUTATIONS,
  subscription: SUBSCRIPTIONS,
};
const ROWS = Object.entries(MATRIX).flatMap(([operation, rows]) =>
  Object.entries(rows).map(([name, row]) => ({ operation, name, row })),
);
const JOIN_TOKEN = 'vgj_of-hosts-that-are-to-come';
const FORBIDDEN = 4403;
const UNAUTHENTICATED = {
  errors: [
    {
      message: 'Send a known token as `Authorization: Bearer <token>`.',
      extensions: { code: 'UNAUTHENTICATED' },
    },
  ],
};

describe('the authorisation matrix', () => {
  for (const [operation, rows] of Object.entries(MATRIX))
    it(`has a row for every ${operation} of the schema, and for nothing else`, () => {
      assert.deepEqual(Object.keys(rows).sort(), Object.keys(rootFields(operation)).sort());
    });

  it('has an expectation for every argument of type ID', () => {
    for (const { operation, name, row } of ROWS)
      assert.deepEqual(Object.keys(row.ids).sort(), idPaths(rootFields(operation)[name]!).sort(), name);
  });
});

const needsDatabase = { skip: process.env['DATABASE_URL'] ? false : 'needs a database: npm test brings one' };

describe('the authorisation matrix holds', needsDatabase, () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let url: string;
  let admin: string;
  let living: Ids;
  let deleted: Ids;

  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-matrix-'));
    living = await insertOneOfEach(database, null);
    deleted = await insertOneOfEach(database, new Date());
    const adminTokenPath = join(folder, 'admin-token');
    const log = pino({ level: 'silent' });
    control = await startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
    url = control.http.url;
    admin = (await readFile(adminTokenPath, 'utf8')).trim();
  });
  after(async () => {
    await control?.close();
    await database?.close();
    await rm(folder, { recursive: true });
  });

  for (const principal of ['anonymous', 'host'] as const) {
    const token = principal === 'host' ? JOIN_TOKEN : null;
    describe(`for ${principal === 'host' ? "a host's join token on /graphql" : 'anonymous callers'}`, () => {
      for (const { operation, name, row } of ROWS)
        it(`${operation} ${name} is refused, with nothing of the data`, async () => {
          assert.equal(row[principal], 'UNAUTHENTICATED');
          const { query } = callOf(operation, name);
          const accept = operation === 'subscription' ? 'text/event-stream' : undefined;
          const overHttp = await post(url, token, query, row.args(living), accept);
          if (row.isPublic && token === null) assert.deepEqual(codesOf(overHttp.body, name), [row.root]);
          else assert.deepEqual(overHttp, { status: 401, body: UNAUTHENTICATED });
          const overWebSocket = await askUninvited(url, token, query, row.args(living));
          // Whoever asks before it was acknowledged is closed with 4401 by the protocol, and with 4403 by us.
          assert.ok([4401, FORBIDDEN].includes(overWebSocket.closeCode), String(overWebSocket.closeCode));
          assert.deepEqual(overWebSocket.heard, []);
        });
    });
  }

  describe('behind the door', () => {
    for (const { operation, name, row } of ROWS)
      it(`${operation} ${name} refuses an anonymous actor by itself`, async () => {
        const { core } = control;
        const watch = new Watch({ db: core.db, feed: core.feed, agent: core.agent, log: pino({ level: 'silent' }) });
        const contextValue = { ...core, actor: { kind: 'anonymous' }, requestId: 'test', address: null, watch };
        const document = parse(callOf(operation, name).query);
        const args = { schema, document, contextValue, variableValues: row.args(living) };
        const result = await (operation === 'subscription' ? subscribe(args) : execute(args));
        watch.close();
        assert.ok(!(Symbol.asyncIterator in result), 'it was opened');
        if (row.isPublic) {
          assert.deepEqual(codesOf({ data: result.data ?? null }, name), [row.root]);
          return;
        }
        if (row.behindTheDoor === 'NULL') {
          assert.deepEqual({ ...result.data }, { [name]: null });
          return;
        }
        const codes = result.errors?.map(({ originalError }) => (originalError as { code?: string } | null)?.code);
        assert.deepEqual(codes, [row.behindTheDoor]);
        assert.equal(result.data?.[name] ?? null, null);
      });
  });

  const ask = (operation: string, name: string, variables: Record<string, unknown>): Promise<Answered> => {
    const { query } = callOf(operation, name);
    if (operation === 'subscription') return firstOf(url, admin, query, variables);
    return post(url, admin, query, variables).then(({ body }) => body);
  };
  const argsFor = (row: FieldRow, path: string, id: string): Record<string, unknown> =>
    withAt(row.alone ?? row.args(living), path, id);

  describe('for the root admin', () => {
    for (const { operation, name, row } of ROWS.filter((one) => one.operation !== 'mutation')) {
      it(`${operation} ${name} is answered`, async () => {
        assert.equal(answerOf(await ask(operation, name, row.args(living)), name), row.root);
      });

      for (const [path, expected] of Object.entries(row.ids))
        it(`${operation} ${name} tells what is, what is not and what is deleted apart by ${path}`, async () => {
          const told: Record<string, string> = {};
          for (const [what, id] of probes(expected, living, deleted)) {
            const answered = await ask(operation, name, argsFor(row, path, id));
            told[what] = answerOf(answered, name);
            if (told[what] === 'FOUND' && path === 'id')
              assert.equal((answered.data![name] as { id: string }).id, id, 'another object');
          }
          assert.deepEqual(told, wanted(expected));
        });
    }
  });

  describe('a mutation with wrong arguments', () => {
    for (const [name, row] of Object.entries(MUTATIONS)) {
      const { field } = callOf('mutation', name);
      const key = inputHas(field, 'idempotencyKey') ? { idempotencyKey: `probe of ${name}` } : {};

      for (const [path, expected] of Object.entries(row.ids))
        it(`${name} answers NOT_FOUND for whatever ${path} does not name, and writes nothing`, async () => {
          const told: Record<string, string> = {};
          const checksums = await contentsOf(database);
          for (const [what, id] of probes(expected, living, deleted)) {
            const { input } = argsFor(row, path, id) as { input: object };
            const answered = await ask('mutation', name, { input: { ...input, ...key } });
            told[what] = refusalOf(answered, name, path.replace('input.', ''));
          }
          assert.deepEqual(told, wanted(expected));
          assert.deepEqual(await contentsOf(database), checksums);
        });

      it(`${name} names the field that it can't accept, and writes nothing`, async () => {
        const checksums = await contentsOf(database);
        const wrong: Record<string, unknown> = {
          ...(inputHas(field, 'reason')
            ? { reason: 'x'.repeat(1025) }
            : inputHas(field, 'account')
              ? { account: 'x'.repeat(256) }
              : { provider: 'x' }),
          ...(inputHas(field, 'name') ? { name: '' } : {}),
        };
        for (const [argument, value] of Object.entries(wrong)) {
          const { input } = row.args(living) as { input: object };
          const answered = await ask('mutation', name, { input: { ...input, ...key, [argument]: value } });
          assert.equal(refusalOf(answered, name, argument), 'INVALID_INPUT');
        }
        assert.deepEqual(await contentsOf(database), checksums);
      });
    }
  });
});

/** Codes of a payload's errors. */
const codesOf = ({ data }: Answered, name: string): string[] => {
  const answered = data![name] as { errors: { code: string }[] } | unknown[];
  if (Array.isArray(answered)) return [answered.length === 0 ? 'EMPTY' : 'FOUND'];
  return answered.errors.map(({ code }) => code);
};

type Probe = [what: keyof Omit<IdRow, 'kind'>, id: string];

/** An id of each sort for which the row expects something. */
function probes(row: IdRow, living: Ids, deleted: Ids): Probe[] {
  const kind = row.kind ?? 'vm';
  const other: ResourceKind = row.kind === null ? 'job' : kind === 'zone' ? 'pod' : 'zone';
  const all: Probe[] = [
    ['living', living[kind]],
    ['unknown', encodeId(kind, Buffer.alloc(16, 7))],
    ['otherKind', living[other]],
    ['malformed', 'nonsense'],
    ['deleted', deleted[kind]],
  ];
  return all.filter(([what]) => row[what] !== null);
}

/** What the row expects of those. */
const wanted = ({ kind: _, ...expected }: IdRow): Record<string, string> =>
  Object.fromEntries(Object.entries(expected).flatMap(([what, answer]) => (answer === null ? [] : [[what, answer]])));

/** What an answer comes to, in the words of the matrix. */
function answerOf({ data, errors }: Answered, name: string): string {
  if (errors) {
    assert.equal(errors.length, 1, JSON.stringify(errors));
    assert.equal(data?.[name] ?? null, null, 'data beside an error');
    return errors[0]!.extensions.code;
  }
  const value = data![name];
  const nodes = Array.isArray(value) ? value : (value as { nodes?: unknown[] } | null)?.nodes;
  if (value === null || nodes?.[0] === null) return 'NULL';
  return nodes?.length === 0 ? 'EMPTY' : 'FOUND';
}

/** The code of the one error in a mutation's payload, whose path must lead to the argument. */
function refusalOf({ data, errors }: Answered, name: string, argument: string): string {
  assert.equal(errors, undefined, JSON.stringify(errors));
  const payload = data![name] as { errors: { code: string; path: string[] | null }[] };
  assert.equal(payload.errors.length, 1, JSON.stringify(payload));
  // Where an argument is in a list, the path says in which entry.
  const path = payload.errors[0]!.path?.filter((step) => !/^\d+$/.test(step));
  assert.equal(path?.join('.'), argument);
  return payload.errors[0]!.code;
}

/** What every process writes while nobody asks for anything: its lease, and the ids that it has taken. */
const OF_PROCESSES = ['control_process', 'id_block'];
/** That it was refused is written, and counted: test/ops/audit.test.ts. */
const OF_REFUSALS = ['audit', 'audit_page', 'feed_head'];

/** How many rows each table has, and a sum over what is in them. */
async function contentsOf({ db }: TestDatabase): Promise<Record<string, unknown>> {
  const { rows: tables } = await sql<{ name: string }>`
    select table_name as name from information_schema.tables
    where table_schema = database() and table_type = 'BASE TABLE'`.execute(db);
  const contents: Record<string, unknown> = {};
  for (const { name } of tables) {
    if (OF_PROCESSES.includes(name) || OF_REFUSALS.includes(name)) continue;
    const { rows: counted } = await sql<{ n: number }>`select count(*) as n from ${sql.table(name)}`.execute(db);
    const { rows: summed } = await sql<{ Checksum: number }>`checksum table ${sql.table(name)}`.execute(db);
    contents[name] = [counted[0]!.n, summed[0]!.Checksum];
  }
  return contents;
}

/** One object of each kind, each in those above it, all of them living or all deleted. */
async function insertOneOfEach({ db }: TestDatabase, deleted_at: Date | null): Promise<Ids> {
  const gone = { deleted_at };
  const zone = await insertZone(db, gone);
  const pod = await insertPod(db, zone, gone);
  const cluster = await insertCluster(db, { zone, pod }, gone);
  const parents = { zone, pod, cluster };
  const storage = await insertStorage(db, parents, gone);
  const offering = await insertOffering(db, gone);
  const template = await insertTemplate(db, zone, gone);
  const host = await insertHost(db, parents, { ...gone, link_state: 'UNREACHABLE' });
  if (!deleted_at) {
    const token = { id: nextId(), cluster_id: cluster.id, token_hash: secretHash(JOIN_TOKEN), hosts_max: 1 };
    await db
      .insertInto('host_join_token')
      .values({ ...token, expires_at: new Date(Date.now() + 3_600_000) })
      .execute();
  }
  const placed = { ...parents, storage, offering, template };
  const domain = await insertDomain(db, undefined, gone);
  await insertDomain(db, domain, gone);
  const account = await insertAccount(db, domain, gone);
  const role = await insertRole(db, undefined, gone);
  const user = await insertUser(db, account, role.id, gone);
  const api_key = await insertApiKey(db, user, gone);
  const session = await insertSession(db, user, gone);
  const owned = { ...gone, account_id: account.id };
  const project = await insertAccount(db, domain, { ...gone, type: 'PROJECT' });
  const project_member = await insertMember(db, project, { account }, ROLE.readOnly, gone);
  await insertTemplate(db, zone, owned);
  const vm = await insertVm(db, placed, { ...owned, host_id: deleted_at ? null : host.id });
  const volume = await insertVolume(db, placed, vm, owned);
  const job = await insertJob(db, vm, { state: 'SUCCEEDED', finished_at: new Date() });
  await insertEvent(db, vm, job);
  await insertAudit(db, { kind: 'vm', ...vm }, user);
  await insertAudit(db, { kind: 'job', ...job }, user);
  const identity_provider = await insertIdentityProvider(db, { domain, account, role }, gone);
  const tenants = { domain, account, role, user, api_key, session, project_member, identity_provider };
  const rows: Record<ResourceKind, Placed> = {
    ...placed,
    ...tenants,
    host,
    vm,
    volume,
    job,
    primary_storage: storage,
  };
  return Object.fromEntries(RESOURCE_KINDS.map((kind) => [kind, encodeId(kind, rows[kind].uid)])) as Ids;
}

async function insertAudit(
  db: TestDatabase['db'],
  subject: Placed & { kind: ResourceKind },
  user: Placed,
): Promise<void> {
  await db.updateTable('feed_head').set({ audit_seq: sql`audit_seq + 1` }).execute();
  const { audit_seq: seq } = await db.selectFrom('feed_head').select('audit_seq').executeTakeFirstOrThrow();
  const about = { subject_kind: subject.kind, subject_id: subject.id, user_id: user.id };
  const done = {
    action: 'startVm',
    outcome: 'ALLOWED' as const,
    code: null,
    changes: '[]',
    reason: null,
    job_id: null,
  };
  const from = { actor: 'acme/alice', credential: null, address: null, account_id: null, request_id: null };
  await db
    .insertInto('audit')
    .values({ seq, ...about, ...done, ...from, asked_id: null })
    .execute();
}

async function insertEvent(db: TestDatabase['db'], vm: Placed, job: Placed): Promise<void> {
  await db.updateTable('feed_head').set({ seq: sql`seq + 1` }).execute();
  const { seq } = await db.selectFrom('feed_head').select('seq').executeTakeFirstOrThrow();
  const about = { subject_kind: 'vm' as const, subject_id: vm.id, job_id: job.id };
  await db
    .insertInto('event')
    .values({ seq, type: 'vm.state', ...about, actor: 'root', reason: null, changes: '[]' })
    .execute();
}
