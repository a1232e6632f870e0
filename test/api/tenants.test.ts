import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createClient } from 'graphql-ws';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import { type Control, startControl } from '../../src/control.ts';
import { emptyTransition } from '../../src/db/transition.ts';
import { GUARDED_KINDS, VERBS } from '../../src/domain/permission.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertApiKey,
  insertDomain,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import { insertTemplate, insertVm, insertVolume, insertWorld, type World } from '../support/world.ts';

interface Named {
  name: string;
}

describe('tenants in the graph', () => {
  let database: TestDatabase;
  let folder: string;
  let world: World;
  let control: Control;
  let root: string;
  let domain: PlacedDomain;
  let admin: string;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    folder = await mkdtemp(join(tmpdir(), 'vg-tenants-'));
    world = await insertWorld(db);
    domain = await insertDomain(db, undefined, { name: 'north' });
    const house = await insertAccount(db, domain, { name: 'house' });
    admin = (await insertApiKey(db, await insertUser(db, house, ROLE.domainAdmin, { name: 'ann' }))).token;
    const adminTokenPath = join(folder, 'admin-token');
    const log = pino({ level: 'silent' });
    control = await startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
    root = (await readFile(adminTokenPath, 'utf8')).trim();
  });
  after(async () => {
    await control.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  const post = (token: string, query: string, variables: object = {}): Promise<Response> =>
    fetch(`${control.http.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ query, variables }),
    });
  async function ask(token: string, query: string, variables: object = {}) {
    const { data, errors } = JSON.parse(await (await post(token, query, variables)).text());
    assert.equal(errors, undefined, JSON.stringify(errors));
    return data;
  }
  async function mutate(token: string, name: string, input: object, selection: string) {
    const type = `${name[0]!.toUpperCase()}${name.slice(1)}Input`;
    const query = `mutation ($input: ${type}!) { ${name}(input: $input) { ${selection} errors { code message path } } }`;
    const { errors, ...payload } = (await ask(token, query, { input }))[name];
    assert.deepEqual(errors, []);
    return payload;
  }
  const roleId = async (id: number) =>
    idOf('role', await database.db.selectFrom('role').select('uid').where('id', '=', id).executeTakeFirstOrThrow());
  /** What a customer of a domain is made of, by who administers it. */
  async function customer(name: string) {
    const { account } = await mutate(
      admin,
      'createAccount',
      { domainId: idOf('domain', domain), name },
      'account { id name domain { name } allowedActions }',
    );
    const input = { accountId: account.id, roleId: await roleId(ROLE.user), name: 'alice' };
    const { user } = await mutate(admin, 'createUser', input, 'user { id account { id } role { name } }');
    assert.deepEqual(user, { id: user.id, account: { id: account.id }, role: { name: 'user' } });
    const made = await mutate(admin, 'createApiKey', { userId: user.id, name: 'laptop' }, 'apiKey { id } token');
    return { account, user, key: made.apiKey, token: made.token as string };
  }

  it('are made by mutations alone, and the key that is told works at once', async () => {
    const { account, user, key, token } = await customer('acme');
    assert.deepEqual(account, {
      id: account.id,
      name: 'acme',
      domain: { name: 'north' },
      allowedActions: ['DISABLE', 'UPDATE', 'DELETE'],
    });
    const { viewer } = await ask(
      token,
      `{ viewer { name kind reach permissions { verb kind } user { id role { name } } apiKey { id role { name } user { id } }
        account { id domain { id } } domain { id parent { id } } } }`,
    );
    const { permissions, ...who } = viewer;
    assert.deepEqual(who, {
      name: 'acme/alice',
      kind: 'USER',
      reach: 'ACCOUNT',
      user: { id: user.id, role: { name: 'user' } },
      // It was made by somebody else: it does not grow with its user.
      apiKey: { id: key.id, role: { name: 'user' }, user: { id: user.id } },
      account: { id: account.id, domain: { id: idOf('domain', domain) } },
      domain: { id: idOf('domain', domain), parent: null },
    });
    const has = permissions.map(({ verb, kind }: { verb: string; kind: string }) => `${verb} ${kind}`);
    assert.ok(has.includes('CREATE VM') && has.includes('DELETE API_KEY') && has.includes('READ ROLE'));
    assert.ok(!has.includes('READ HOST') && !has.includes('UPDATE USER'));
  });

  it('root is told that it may do everything, as nobody of an account', async () => {
    const { viewer } = await ask(
      root,
      '{ viewer { reach permissions { verb } user { id } apiKey { id } account { id } domain { id } } }',
    );
    const { permissions, ...who } = viewer;
    assert.deepEqual(who, { reach: 'ALL', user: null, apiKey: null, account: null, domain: null });
    assert.equal(permissions.length, VERBS.length * GUARDED_KINDS.length);
  });

  it('lead to one another, and to what is theirs', async () => {
    const { account, token } = await customer('shop');
    const { id } = await database.db
      .selectFrom('account')
      .select('id')
      .where('name', '=', 'shop')
      .executeTakeFirstOrThrow();
    const owned = { account_id: id };
    const template = await insertTemplate(database.db, world.zone, owned);
    const vm = await insertVm(database.db, world, { ...owned, name: 'till' });
    const volume = await insertVolume(database.db, world, vm, owned);
    const query = `query ($id: ID!) { account(id: $id) { users { nodes { name apiKeys { nodes { name } } } }
      vms { nodes { id account { id } } } volumes { nodes { id account { id } } }
      templates { nodes { id account { id } } } } }`;
    const whose = { account: { id: account.id } };
    for (const asking of [root, admin, token])
      assert.deepEqual((await ask(asking, query, { id: account.id })).account, {
        users: { nodes: [{ name: 'alice', apiKeys: { nodes: [{ name: 'laptop' }] } }] },
        vms: { nodes: [{ id: idOf('vm', vm), ...whose }] },
        volumes: { nodes: [{ id: idOf('volume', volume), ...whose }] },
        templates: { nodes: [{ id: idOf('template', template), ...whose }] },
      });
    const filter = `query ($id: ID!) { vms(filter: { accountId: $id }) { totalCount } accounts(filter: { name: "shop" }) {
      totalCount } users(filter: { accountId: $id }) { totalCount } domains { nodes { name accounts { totalCount } } } }`;
    const found = await ask(token, filter, { id: account.id });
    assert.deepEqual(found, {
      vms: { totalCount: 1 },
      accounts: { totalCount: 1 },
      users: { totalCount: 1 },
      domains: { nodes: [{ name: 'north', accounts: { totalCount: 1 } }] },
    });
  });

  it('roles are shown rule by rule, to whoever they could be granted to', async () => {
    const rules = [
      { effect: 'DENY', verb: 'ANY', kind: 'HOST' },
      { effect: 'ALLOW', verb: 'READ', kind: 'ANY' },
    ];
    const selection = 'role { id name reach builtIn rules { effect verb kind } users { totalCount } }';
    const { role } = await mutate(root, 'createRole', { name: 'auditor', reach: 'ALL', rules }, selection);
    assert.deepEqual(role, {
      id: role.id,
      name: 'auditor',
      reach: 'ALL',
      builtIn: false,
      rules,
      users: { totalCount: 0 },
    });
    const names = async (token: string) =>
      (await ask(token, '{ roles { nodes { name } } }')).roles.nodes.map(({ name }: Named) => name);
    assert.deepEqual(await names(root), [
      'root admin',
      'domain admin',
      'user',
      'read-only',
      'project admin',
      'auditor',
    ]);
    assert.deepEqual(await names(admin), ['domain admin', 'user', 'read-only', 'project admin']);
    const { token } = await customer('viewers');
    assert.deepEqual(await names(token), ['user', 'read-only', 'project admin']);
    const built = await ask(root, 'query ($id: ID!) { role(id: $id) { builtIn rules { effect verb kind } } }', {
      id: await roleId(ROLE.rootAdmin),
    });
    assert.deepEqual(built.role, { builtIn: true, rules: [{ effect: 'ALLOW', verb: 'ANY', kind: 'ANY' }] });
    const gone = await mutate(root, 'deleteRole', { id: role.id }, 'id');
    assert.deepEqual(gone, { id: role.id });
  });

  it('actions that would be refused are not offered', async () => {
    const { account, user, token } = await customer('actions');
    const actions = async (asking: string, field: string, id: string): Promise<string[]> =>
      (await ask(asking, `query ($id: ID!) { ${field}(id: $id) { allowedActions } }`, { id }))[field].allowedActions;
    const { viewer } = await ask(admin, '{ viewer { user { id } account { id } } }');
    const boss = await insertUser(database.db, { id: await numberOf(account.id) }, ROLE.rootAdmin);
    assert.deepEqual(await actions(admin, 'domain', idOf('domain', domain)), ['UPDATE']);
    assert.deepEqual(await actions(admin, 'account', viewer.account.id), ['UPDATE']);
    assert.deepEqual(await actions(admin, 'user', viewer.user.id), ['UPDATE']);
    assert.deepEqual(await actions(admin, 'user', user.id), ['DISABLE', 'UPDATE', 'DELETE']);
    assert.deepEqual(await actions(admin, 'user', idOf('user', boss)), []);
    assert.deepEqual(await actions(token, 'user', user.id), []);
    const operator = (await ask(root, '{ accounts(first: 1) { nodes { id } } }')).accounts.nodes[0];
    assert.deepEqual(await actions(root, 'account', operator.id), ['UPDATE']);
    const { domains } = await ask(root, '{ domains(first: 1) { nodes { parent { id } allowedActions } } }');
    assert.deepEqual(domains.nodes, [{ parent: null, allowedActions: ['UPDATE'] }]);
  });

  const numberOf = async (accountId: string): Promise<number> => {
    const rows = await database.db.selectFrom('account').select(['id', 'uid']).execute();
    return rows.find((row) => idOf('account', row) === accountId)!.id;
  };

  it('a key that is revoked is shown as such, and opens nothing any more', async () => {
    const { key, user, token } = await customer('revoked');
    const { apiKey } = await mutate(admin, 'revokeApiKey', { id: key.id }, 'apiKey { id deletedAt }');
    assert.equal(apiKey.id, key.id);
    assert.notEqual(apiKey.deletedAt, null);
    assert.equal((await post(token, '{ viewer { name } }')).status, 401);
    const query = 'query ($id: ID!) { apiKeys(filter: { userId: $id }) { totalCount } user(id: $id) { name } }';
    assert.deepEqual(await ask(admin, query, { id: user.id }), {
      apiKeys: { totalCount: 0 },
      user: { name: 'alice' },
    });
  });

  it('nothing reads a secret, nor its hash', async () => {
    const { __type: type } = await ask(root, '{ __type(name: "ApiKey") { fields { name } } }');
    assert.deepEqual(type.fields.map(({ name }: Named) => name).sort(), [
      'createdAt',
      'deletedAt',
      'events',
      'expiresAt',
      'id',
      'lastUsedAt',
      'name',
      'role',
      'user',
    ]);
    const { session } = await ask(root, '{ session: __type(name: "Session") { fields { name } } }');
    assert.ok(!session.fields.some(({ name }: Named) => /token|hash/i.test(name)));
    const { user } = await ask(root, '{ user: __type(name: "User") { fields { name } } }');
    assert.ok(!user.fields.some(({ name }: Named) => /hash|seed|code/i.test(name)));
  });

  it('an account that this process has not heard of yet is seen by who administers its domain', async () => {
    const unheard = await insertAccount(database.db, await insertDomain(database.db, domain), { name: 'unheard' });
    const user = await insertUser(database.db, unheard, ROLE.user);
    const query = 'query ($id: ID!, $user: ID!) { account(id: $id) { name } user(id: $user) { account { name } } }';
    assert.deepEqual(await ask(admin, query, { id: idOf('account', unheard), user: idOf('user', user) }), {
      account: { name: 'unheard' },
      user: { account: { name: 'unheard' } },
    });
  });

  it('what is deleted is still shown to who administers its domain, and what was done to it', async () => {
    const { account, user } = await customer('short-lived');
    await mutate(admin, 'deleteUser', { id: user.id }, 'id');
    await mutate(admin, 'deleteAccount', { id: account.id, reason: 'left us' }, 'id');
    await control.core.inventory.load();
    const query = `query ($id: ID!) { account(id: $id) { name deletedAt allowedActions
      events { nodes { type reason subject { id } } } } }`;
    const { deletedAt, ...shown } = (await ask(admin, query, { id: account.id })).account;
    assert.notEqual(deletedAt, null);
    assert.deepEqual(shown, {
      name: 'short-lived',
      allowedActions: [],
      events: {
        nodes: [
          { type: 'account.deleted', reason: 'left us', subject: { id: account.id } },
          { type: 'account.created', reason: null, subject: { id: account.id } },
        ],
      },
    });
    assert.equal((await ask((await customer('others')).token, query, { id: account.id })).account, null);
  });

  it('who follows events hears of an account that this process has not heard of yet', async () => {
    const client = createClient({
      url: `${control.http.url.replace(/^http/, 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { authorization: `Bearer ${admin}` },
      retryAttempts: 0,
    });
    const { events } = await ask(root, '{ events(first: 1) { nodes { seq } } }');
    const messages = client.iterate<{ eventAppended: { subject: { id: string } } }>({
      query: 'subscription ($afterSeq: String!) { eventAppended(afterSeq: $afterSeq) { subject { id } } }',
      variables: { afterSeq: events.nodes[0].seq },
    });
    const next = async () => (await messages.next()).value?.data?.eventAppended.subject.id;
    const told = (id: number) =>
      control.core.writer.submit({
        ...emptyTransition(),
        // What wakes followers; of the account itself nothing is told.
        changes: [{ kind: 'zone', id: world.zone.id }],
        events: [
          {
            type: 'account.created',
            subject: { kind: 'account' as const, id },
            accountId: id,
            jobId: null,
            actor: 'test',
            reason: null,
            changes: [],
          },
        ],
      });
    // The first by a read of the past, for it is attached only then.
    const [first, unheard] = [await insertAccount(database.db, domain), await insertAccount(database.db, domain)];
    const strange = await insertAccount(database.db, await insertDomain(database.db));
    await told(first.id);
    assert.equal(await next(), idOf('account', first));
    await told(strange.id);
    await told(unheard.id);
    assert.equal(await next(), idOf('account', unheard));
    await messages.return?.();
    await client.dispose();
  });
});
