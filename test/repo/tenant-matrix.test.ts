import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';
import { belongings } from '../support/belongings.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertAccount, insertApiKey, insertDomain, insertMember, insertUser, ROLE } from '../support/tenants.ts';
import { insertOffering, insertVm, insertWorld, type World } from '../support/world.ts';
import { type FieldRow, type Ids, MUTATIONS, QUERIES, SUBSCRIPTIONS } from './authorization-matrix.ts';
import { type Answered, callOf, firstOf, post, withAt } from './graph-probe.ts';

/** Callers, by what of acme's they see. */
const BELONGINGS = [
  ...(['vm', 'volume', 'job', 'template'] as const),
  ...(['domain', 'account', 'user', 'api_key', 'project_member'] as const),
] satisfies ResourceKind[];
const PRINCIPALS = {
  owner: BELONGINGS,
  reader: BELONGINGS,
  // Where others are signed in is for who administers them.
  domainAdmin: [...BELONGINGS, 'session', 'identity_provider'],
  domainAdminAbove: [...BELONGINGS, 'session', 'identity_provider'],
  // Of an account elsewhere, who works in a project of acme's domain: acme has no part in it.
  projectMember: [],
  stranger: [],
  siblingDomainAdmin: [],
  domainAdminBelow: [],
} satisfies Record<string, ResourceKind[]>;
type Principal = keyof typeof PRINCIPALS;
const NAMES = Object.keys(PRINCIPALS) as Principal[];
/** What every tenant has to know to order something, or to grant it. */
const CATALOGUE: ResourceKind[] = ['zone', 'offering', 'role'];
const sees = (principal: Principal, kind: ResourceKind): boolean =>
  CATALOGUE.includes(kind) || (PRINCIPALS[principal] as ResourceKind[]).includes(kind);

const ROWS = Object.entries({ query: QUERIES, mutation: MUTATIONS, subscription: SUBSCRIPTIONS }).flatMap(
  ([operation, rows]) => Object.entries(rows).map(([name, row]) => ({ operation, name, row })),
);

const needsDatabase = { skip: process.env['DATABASE_URL'] ? false : 'needs a database: npm test brings one' };

describe('tenants', needsDatabase, () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let root: string;
  let world: World;
  let acmes: Ids;
  let globexVm: string;
  let sharedVm: string;
  let acmeId: number;
  const tokens = {} as Record<Principal, string>;

  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    folder = await mkdtemp(join(tmpdir(), 'vg-tenants-'));
    world = await insertWorld(db);
    const above = await insertDomain(db);
    const domain = await insertDomain(db, above);
    const below = await insertDomain(db, domain);
    const sibling = await insertDomain(db, above);
    const acme = await insertAccount(db, domain, { name: 'acme' });
    acmeId = acme.id;
    const globex = await insertAccount(db, sibling, { name: 'globex' });
    const project = await insertAccount(db, domain, { type: 'PROJECT' });
    sharedVm = encodeId('vm', (await insertVm(db, world, { account_id: project.id, name: 'shared' })).uid);
    for (const [principal, account, role] of [
      ['owner', acme, ROLE.user],
      ['reader', acme, ROLE.readOnly],
      ['domainAdmin', await insertAccount(db, domain), ROLE.domainAdmin],
      ['domainAdminAbove', await insertAccount(db, above), ROLE.domainAdmin],
      ['stranger', globex, ROLE.user],
      ['siblingDomainAdmin', globex, ROLE.domainAdmin],
      ['domainAdminBelow', await insertAccount(db, below), ROLE.domainAdmin],
    ] as const)
      tokens[principal] = (await insertApiKey(db, await insertUser(db, account, role))).token;
    const shares = await insertUser(db, await insertAccount(db, await insertDomain(db)), ROLE.readOnly);
    tokens.projectMember = (await insertApiKey(db, shares)).token;
    await insertMember(db, project, { user: shares }, ROLE.user);
    acmes = await belongings(database, world, domain, acme);
    globexVm = encodeId('vm', (await insertVm(db, world, { account_id: globex.id, name: 'secret of globex' })).uid);
    const adminTokenPath = join(folder, 'admin-token');
    const log = pino({ level: 'silent' });
    control = await startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
    root = (await readFile(adminTokenPath, 'utf8')).trim();
  });
  after(async () => {
    await control?.close();
    await database?.close();
    await rm(folder, { recursive: true });
  });

  const ask = (
    token: string,
    operation: string,
    name: string,
    variables: Record<string, unknown>,
  ): Promise<Answered> => {
    const { query } = callOf(operation, name);
    if (operation === 'subscription') return firstOf(control.http.url, token, query, variables);
    // Without what an answer says of itself: what it cost, and what the caller may still ask for.
    return post(control.http.url, token, query, variables).then(({ body: { data, errors } }) => ({
      ...(data === undefined ? {} : { data }),
      ...(errors === undefined ? {} : { errors }),
    }));
  };
  const argsWith = (row: FieldRow, path: string, id: string) => withAt(row.alone ?? row.args(acmes), path, id);

  for (const { operation, name, row } of ROWS)
    for (const [path, { kind }] of Object.entries(row.ids))
      it(`${operation} ${name} answers a foreign ${path} as one of nothing`, async () => {
        const named = kind ?? 'vm';
        const unknown = encodeId(named, Buffer.alloc(16, 7));
        let hidden = 0;
        for (const principal of NAMES.filter((one) => !sees(one, named))) {
          hidden++;
          const foreign = await ask(tokens[principal], operation, name, argsWith(row, path, acmes[named]));
          const nothing = await ask(tokens[principal], operation, name, argsWith(row, path, unknown));
          assert.deepEqual(masked(foreign, acmes[named]), masked(nothing, unknown), principal);
        }
        assert.equal(hidden > 0, !CATALOGUE.includes(named));
      });

  for (const [name, row] of Object.entries(QUERIES).filter(([, { ids }]) => ids['id']))
    it(`query ${name} is answered to those who may see it, and to root`, async () => {
      const kind = row.ids['id']!.kind ?? 'vm';
      const ofRoot = await ask(root, 'query', name, row.args(acmes));
      for (const principal of NAMES.filter((one) => sees(one, kind)))
        assert.deepEqual(await ask(tokens[principal], 'query', name, row.args(acmes)), ofRoot, principal);
    });

  it('lists and counts hold what is theirs and nothing else', async () => {
    const counts: Record<string, number[]> = {};
    for (const [who, token] of [...Object.entries(tokens), ['root', root] as const]) {
      const lists = [
        'vms',
        'volumes',
        'jobs',
        'events',
        'templates',
        'zones',
        'offerings',
        'domains',
        'accounts',
        'users',
        'apiKeys',
        'roles',
        'pods',
        'clusters',
        'hosts',
      ];
      // Of hosts that are away the control plane tells meanwhile, and root hears of it.
      const narrowed: Record<string, string> = { events: '(filter: { type: "vm.state" })' };
      const asked = [...lists, 'primaryStorages'].map(
        (list) => `${list}${narrowed[list] ?? ''} { totalCount nodes { id } }`,
      );
      const query = `{ ${asked.join(' ')} }`;
      const { body } = await post(control.http.url, token, query, {});
      assert.equal(body.errors, undefined, JSON.stringify(body.errors));
      counts[who] = Object.values(body.data as Record<string, { totalCount: number; nodes: unknown[] }>).map((page) => {
        assert.equal(page.totalCount, page.nodes.length);
        return page.totalCount;
      });
    }
    const infrastructure = [0, 0, 0, 0];
    // VMs, volumes, jobs, events, templates, zones, offerings; domains, accounts, users, keys, roles.
    const acme = [1, 1, 1, 1, 2, 1, 1, ...[1, 2, 3, 3, 4], ...infrastructure];
    const globex = [1, 0, 0, 0, 1, 1, 1, ...[1, 1, 2, 2, 4], ...infrastructure];
    assert.deepEqual(counts, {
      owner: acme,
      reader: acme,
      // Its own account beside acme, the projects, and the domain below; roles that reach as far as it does.
      domainAdmin: [2, 1, 1, 1, 2, 1, 1, ...[2, 5, 5, 5, 5], ...infrastructure],
      domainAdminAbove: [3, 1, 1, 1, 2, 1, 1, ...[4, 7, 8, 8, 5], ...infrastructure],
      // The project's VM, and the project beside the own account; the own domain alone.
      projectMember: [1, 0, 0, 0, 1, 1, 1, ...[1, 2, 1, 1, 4], ...infrastructure],
      stranger: globex,
      siblingDomainAdmin: [1, 0, 0, 0, 1, 1, 1, ...[1, 1, 2, 2, 5], ...infrastructure],
      domainAdminBelow: [0, 0, 0, 0, 1, 1, 1, ...[1, 1, 1, 1, 5], ...infrastructure],
      root: [3, 1, 1, 1, 2, 1, 1, ...[6, 9, 9, 9, 6], 1, 1, 1, 1],
    });
  });

  it('lists below what all may see hold no more', async () => {
    const query = '{ zones { nodes { vms { totalCount nodes { name } } } } }';
    const { body } = await post(control.http.url, tokens.owner, query, {});
    assert.deepEqual(body.data, { zones: { nodes: [{ vms: { totalCount: 1, nodes: [{ name: 'web' }] } }] } });
  });

  it('a VM is shown to its owner without the host, cluster and storage that it is on', async () => {
    const query = `query ($id: ID!) { vm(id: $id) { name zone { id } pod { id } cluster { id } host { id } lastHost { id }
      template { id } observed { host { id } } volumes { primaryStorage { id } cluster { id } } allowedActions } }`;
    const vm = async (token: string) => {
      const { body } = await post(control.http.url, token, query, { id: acmes.vm });
      assert.equal(body.errors, undefined, JSON.stringify(body.errors));
      return body.data!['vm'] as Record<string, unknown>;
    };
    const seen = await vm(tokens.owner);
    assert.deepEqual(
      [seen['pod'], seen['cluster'], seen['host'], seen['volumes']],
      [null, null, null, [{ primaryStorage: null, cluster: null }]],
    );
    assert.deepEqual(seen['zone'], { id: acmes.zone });
    assert.deepEqual(seen['template'], { id: acmes.template });
    assert.ok((seen['allowedActions'] as string[]).includes('START'));
    assert.deepEqual((await vm(tokens.reader))['allowedActions'], []);
    assert.deepEqual(((await vm(root))['host'] as { id: string } | null)?.id, undefined);
  });

  for (const [name, row] of Object.entries(MUTATIONS))
    it(`mutation ${name} is refused to a reader, who sees the object, and writes nothing`, async () => {
      const before = await headSeq(database);
      const answered = await ask(tokens.reader, 'mutation', name, row.args(acmes));
      const { errors } = answered.data![name] as { errors: { code: string }[] };
      assert.deepEqual(
        errors.map(({ code }) => code),
        [OF_ONESELF[name] ?? 'FORBIDDEN'],
      );
      assert.equal(await headSeq(database), before);
    });

  it('what is refused for want of room tells a tenant of no host', async () => {
    const huge = encodeId('offering', (await insertOffering(database.db, { vcpus: 256 })).uid);
    await control.core.inventory.load();
    const input = { name: 'web', zoneId: acmes.zone, offeringId: huge, templateId: acmes.template };
    const query = `mutation ($input: CreateVmInput!) { createVm(input: $input) {
      errors { code message ... on InsufficientCapacityError { rejections { hostName } } } } }`;
    const refusal = async (token: string) =>
      ((await post(control.http.url, token, query, { input })).body.data!['createVm'] as { errors: unknown[] })
        .errors[0];
    assert.deepEqual(await refusal(tokens.owner), {
      code: 'INSUFFICIENT_CAPACITY',
      message: 'Nothing has room for it at the moment.',
      rejections: [],
    });
    assert.match(JSON.stringify(await refusal(root)), /host-\d+/);
  });

  it('what is refused because a host is away tells a tenant of no host', async () => {
    const { db } = database;
    const { id } = world.hosts[0]!;
    const { uid } = await insertVm(db, world, { account_id: acmeId, state: 'RUNNING', host_id: id, name: 'away' });
    await db.updateTable('host').set({ link_state: 'UNREACHABLE' }).where('id', '=', id).execute();
    await control.core.inventory.load();
    const query = 'mutation ($input: StopVmInput!) { stopVm(input: $input) { errors { code message } } }';
    const refusal = async (token: string) =>
      (
        (await post(control.http.url, token, query, { input: { id: encodeId('vm', uid) } })).body.data!['stopVm'] as {
          errors: { code: string; message: string }[];
        }
      ).errors[0]!;
    const told = await refusal(tokens.owner);
    assert.equal(told.code, 'HOST_UNREACHABLE');
    assert.doesNotMatch(told.message, /host-/);
    assert.match((await refusal(root)).message, /host-\d+/);
  });

  it('a member of a project is shown what is in it, works with it, and has nothing else of the neighbourhood', async () => {
    const query = 'query ($id: ID!) { vm(id: $id) { name account { type } } }';
    const seen = await post(control.http.url, tokens.projectMember, query, { id: sharedVm });
    assert.deepEqual(seen.body.data, { vm: { name: 'shared', account: { type: 'PROJECT' } } });
    for (const principal of ['owner', 'reader', 'stranger', 'siblingDomainAdmin', 'domainAdminBelow'] as const) {
      const { body } = await post(control.http.url, tokens[principal], query, { id: sharedVm });
      assert.deepEqual(body.data, { vm: null }, principal);
    }
    const update = 'mutation ($input: UpdateVmInput!) { updateVm(input: $input) { vm { name } errors { code } } }';
    const input = { id: sharedVm, description: 'of all of us' };
    const answered = await post(control.http.url, tokens.projectMember, update, { input });
    assert.deepEqual(answered.body.data!['updateVm'], { vm: { name: 'shared' }, errors: [] });
  });

  it('what a tenant does is its own, under its name', async () => {
    const query = `mutation ($input: UpdateVmInput!) { updateVm(input: $input) { vm { name } errors { code } } }`;
    const { body } = await post(control.http.url, tokens.stranger, query, { input: { id: globexVm, name: 'renamed' } });
    assert.deepEqual(body.data!['updateVm'], { vm: { name: 'renamed' }, errors: [] });
    const events = '{ events { nodes { actor changes { field } } } }';
    const seen = await post(control.http.url, tokens.siblingDomainAdmin, events, {});
    const { nodes } = seen.body.data!['events'] as { nodes: { actor: string }[] };
    assert.equal(nodes.length, 1);
    assert.match(nodes[0]!.actor, /^globex\/user-/);
    const others = await post(control.http.url, tokens.owner, events, {});
    assert.doesNotMatch(JSON.stringify(others.body), /globex/);
  });
});

/** What anybody may do to himself is refused for what is in it. */
const OF_ONESELF: Record<string, string> = {
  signIn: 'UNAUTHENTICATED',
  beginOidcSignIn: 'NOT_FOUND',
  changePassword: 'INVALID_INPUT',
  revokeSession: 'NOT_FOUND',
};

/** The answer without the id that was asked for. */
const masked = (answered: Answered, id: string): unknown => JSON.parse(JSON.stringify(answered).replaceAll(id, 'ID'));

async function headSeq({ db }: TestDatabase): Promise<number> {
  return (await db.selectFrom('feed_head').select('seq').executeTakeFirstOrThrow()).seq;
}
