import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type ExecutionResult, parse, subscribe, validate } from 'graphql';
import { pino } from 'pino';
import type { Core } from '../../src/core.ts';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import type { GraphContext } from '../../src/graphql/context.ts';
import { schema } from '../../src/graphql/schema.ts';
import { Watch } from '../../src/graphql/watch.ts';
import { ADMIN, openCore } from '../support/core.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import { EXECUTORS, testContext } from '../support/graph.ts';
import { idOf, insertAccount, insertActor, insertDomain, type PlacedDomain, ROLE } from '../support/tenants.ts';
import { insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

describe('quotas in the graph', () => {
  let database: TestDatabase;
  let core: Core;
  let watch: Watch;
  let world: World;
  let above: PlacedDomain;
  let domain: PlacedDomain;
  let account: Placed;
  let neighbour: Placed;
  let adminAbove: UserActor;
  let admin: UserActor;
  let user: UserActor;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    above = await insertDomain(db, undefined, { name: 'above' });
    domain = await insertDomain(db, above, { name: 'customers' });
    account = await insertAccount(db, domain, { name: 'web' });
    neighbour = await insertAccount(db, domain, { name: 'neighbour' });
    adminAbove = await insertActor(db, await insertAccount(db, above), ROLE.domainAdmin);
    admin = await insertActor(db, neighbour, ROLE.domainAdmin);
    user = await insertActor(db, account, ROLE.user);
    core = await openCore(database.url);
    watch = new Watch({ db: core.db, feed: core.feed, agent: core.agent, log: pino({ level: 'silent' }) });
  });
  after(async () => {
    watch.close();
    await core.close();
    await database.close();
  });

  const contextOf = (actor: Actor, more: Partial<GraphContext> = {}): GraphContext =>
    testContext({ ...core, actor, watch, ...more });
  const ask = async (actor: Actor, source: string, variables: Record<string, unknown> = {}) => {
    const { data, errors } = await EXECUTORS['graphql-jit'](contextOf(actor), source, variables);
    assert.equal(errors, undefined, JSON.stringify(errors));
    return JSON.parse(JSON.stringify(data));
  };
  const set = async (owner: object, resource: string, limit: number | null) => {
    const source = `mutation ($input: UpdateQuotaInput!) { updateQuota(input: $input) {
      quota { account { name } domain { name } } errors { message } } }`;
    const { updateQuota } = await ask(ADMIN, source, { input: { ...owner, limits: [{ resource, limit }] } });
    assert.deepEqual(updateQuota.errors, []);
    return updateQuota.quota;
  };
  const wish = (more: object = {}) => ({
    name: 'v',
    accountId: idOf('account', account),
    zoneId: idOf('zone', world.zone),
    offeringId: idOf('offering', world.offering),
    templateId: idOf('template', world.template),
    ...more,
  });
  type Numbers = { resource: string; limit: number | null; used: number; available: number | null };
  const of = (resource: string, { resources }: { resources: Numbers[] }) =>
    resources.find((one) => one.resource === resource);
  const FIELDS = '{ resources { resource limit used effectiveLimit available } }';

  it('are shown at accounts and domains, with what is left above them as a number alone', async () => {
    assert.deepEqual(await set({ domainId: idOf('domain', above) }, 'VMS', 3), {
      account: null,
      domain: { name: 'above' },
    });
    await set({ accountId: idOf('account', account) }, 'VMS', 5);
    await insertVm(database.db, world, { account_id: neighbour.id });
    const source = `query ($account: ID!, $domain: ID!) {
      account(id: $account) { quota ${FIELDS} } domain(id: $domain) { quota ${FIELDS} }
      quotaUsage(domainId: $domain) ${FIELDS} }`;
    const variables = { account: idOf('account', account), domain: idOf('domain', domain) };
    const own = { resource: 'VMS', limit: 5, used: 0, effectiveLimit: 3, available: 2 };
    const ofDomain = { resource: 'VMS', limit: null, used: 1, effectiveLimit: 3, available: 2 };
    for (const actor of [ADMIN, adminAbove, admin]) {
      const seen = await ask(actor, source, variables);
      assert.deepEqual(of('VMS', seen.account.quota), own);
      assert.deepEqual(of('VMS', seen.domain.quota), ofDomain);
      assert.deepEqual(of('VMS', seen.quotaUsage), ofDomain);
      assert.equal(seen.quotaUsage.resources.length, 7);
    }
    const seen = await ask(user, source, variables);
    assert.deepEqual(of('VMS', seen.account.quota), own);
    assert.deepEqual([seen.domain.quota, seen.quotaUsage], [null, null]);
  });

  it('of a list are read by one statement for its accounts and one for the domains above them', async () => {
    const { db, statements } = recordStatements(database.pool);
    const source = '{ accounts { nodes { quota { generation } } } domains { nodes { quota { generation } } } }';
    const { data } = await EXECUTORS['graphql-js'](contextOf(ADMIN, { db }), source);
    const { accounts, domains } = data as unknown as Record<string, { nodes: { quota: unknown }[] }>;
    assert.ok([...accounts!.nodes, ...domains!.nodes].every(({ quota }) => quota !== null));
    assert.deepEqual(
      ['account_quota', 'domain_quota'].map(
        (table) => statements.filter((text) => text.includes(`\`${table}\``)).length,
      ),
      [1, 2],
    );
  });

  it('refuse with names and numbers to whom they are shown, and without any to others', async () => {
    await set({ domainId: idOf('domain', above) }, 'VMS', 1);
    const source = `mutation ($input: CreateVmInput!) { createVm(input: $input) { vm { id } errors { __typename code message path
      ... on QuotaExceededError { resource limit used asked account { name } domain { name } } } } }`;
    const refusal = async (actor: Actor) => {
      const { createVm } = await ask(actor, source, { input: wish() });
      assert.deepEqual([createVm.vm, createVm.errors.length], [null, 1]);
      return createVm.errors[0];
    };
    const shared = { __typename: 'QuotaExceededError', code: 'QUOTA_EXCEEDED', path: null, account: null };
    for (const actor of [ADMIN, adminAbove])
      assert.deepEqual(await refusal(actor), {
        ...shared,
        message: 'Quota of domain above: 1 of 1 VMs; this needs 1 more.',
        ...{ resource: 'VMS', limit: 1, used: 1, asked: 1, domain: { name: 'above' } },
      });
    for (const actor of [admin, user])
      assert.deepEqual(await refusal(actor), {
        ...shared,
        message: 'A quota above is reached. Whoever administers the domain can tell more.',
        ...{ resource: null, limit: null, used: null, asked: null, domain: null },
      });
    await set({ accountId: idOf('account', account) }, 'VMS', 0);
    assert.deepEqual(await refusal(user), {
      ...shared,
      message: 'Quota of account web: 0 of 0 VMs; this needs 1 more.',
      ...{ resource: 'VMS', limit: 0, used: 0, asked: 1, account: { name: 'web' }, domain: null },
    });
  });

  async function open(actor: Actor, variables: Record<string, unknown>) {
    const document = parse(`subscription ($accountId: ID, $domainId: ID) {
      quotaUsage(accountId: $accountId, domainId: $domainId) ${FIELDS} }`);
    assert.deepEqual(validate(schema, document), []);
    return subscribe({ schema, document, contextValue: contextOf(actor), variableValues: variables });
  }

  it('are pushed as they are, then with each change of their own and of what is left above', async () => {
    await set({ domainId: idOf('domain', above) }, 'VMS', 10);
    await set({ accountId: idOf('account', account) }, 'VMS', 5);
    const stream = (await open(user, { accountId: idOf('account', account) })) as AsyncGenerator<ExecutionResult>;
    const next = async (what: (numbers: Numbers) => boolean) => {
      // What changes fast is told at most four times a second: only the newest is sure to come.
      for (;;) {
        const { done, value } = await stream.next();
        assert.ok(!done, 'it ended');
        assert.equal(value.errors, undefined);
        const numbers = of('VMS', value.data!['quotaUsage'] as never)!;
        if (what(numbers)) return { ...numbers };
      }
    };
    assert.deepEqual(await next(() => true), {
      ...{ resource: 'VMS', limit: 5, used: 0, effectiveLimit: 5, available: 5 },
    });
    await set({ domainId: idOf('domain', above) }, 'VMS', 2);
    assert.deepEqual(await next(({ available }) => available === 1), {
      ...{ resource: 'VMS', limit: 5, used: 0, effectiveLimit: 2, available: 1 },
    });
    assert.deepEqual((await core.ops.createVm(user, wish())).errors, []);
    assert.deepEqual(await next(({ used }) => used === 1), {
      ...{ resource: 'VMS', limit: 5, used: 1, effectiveLimit: 2, available: 0 },
    });
    await stream.return(undefined);
  });

  it('are told again once they can be read, when they could not be', async () => {
    const { db } = recordStatements(database.pool);
    let away = true;
    const warned = Promise.withResolvers<void>();
    const flaky = new Proxy(db, {
      get(target, name) {
        if (name === 'selectFrom' && away) throw new Error('the database is away');
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const log = { warn: () => warned.resolve() } as never;
    const mine = new Watch({ db: flaky, feed: core.feed, agent: core.agent, log });
    const delivery = mine.quotas.quota([{ kind: 'account', id: account.id }]);
    await warned.promise;
    away = false;
    const { value } = await delivery.next();
    assert.equal((value as { owner: { id: number } }).owner.id, account.id);
    await delivery.return();
    mine.close();
  });

  it('are not opened for who may not see them', async () => {
    const code = async (actor: Actor, variables: Record<string, unknown>) => {
      const result = (await open(actor, variables)) as ExecutionResult;
      return (result.errors?.[0]?.originalError as { code?: string } | undefined)?.code;
    };
    assert.equal(await code(user, { domainId: idOf('domain', domain) }), 'NOT_FOUND');
    assert.equal(await code(admin, { domainId: idOf('domain', above) }), 'NOT_FOUND');
    assert.equal(await code(ADMIN, {}), 'INVALID_INPUT');
    assert.equal(
      await code(ADMIN, { domainId: idOf('domain', domain), accountId: idOf('account', account) }),
      'INVALID_INPUT',
    );
  });
});
