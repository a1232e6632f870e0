import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Client, createClient } from 'graphql-ws';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import { type Control, startControl } from '../../src/control.ts';
import { emptyTransition, now, patch, type Transition } from '../../src/db/transition.ts';
import type { Actor } from '../../src/domain/authorize.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { SESSION_IDLE_MS } from '../../src/domain/session.ts';
import type { Payload } from '../../src/ops/context.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  insertAccount,
  insertApiKey,
  insertDomain,
  insertIdentityProvider,
  insertMember,
  insertSession,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import { insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

const EVENTS = 1_000;

const ago = (ms: number): Date => new Date(Date.now() - ms);

describe('what is revoked', () => {
  let database: TestDatabase;
  let folder: string;
  let world: World;
  let domain: PlacedDomain;
  /** Two control planes: one is written through, the other learns of it by the feed. */
  const planes: Control[] = [];
  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-revoke-'));
    world = await insertWorld(database.db);
    domain = await insertDomain(database.db);
    const options = { databaseUrl: database.url, host: '127.0.0.1', port: 0, log: pino({ level: 'silent' }) };
    for (let i = 0; i < 2; i++) planes.push(await startControl({ ...options, adminTokenPath: join(folder, 'token') }));
  });
  after(async () => {
    for (const plane of planes) await plane.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  /** Who may end what others have open. */
  const ADMIN: Actor = { kind: 'root-admin', tokenId: 1, name: 'root' };

  interface Tenant {
    account: Placed;
    user: Placed;
    key: Placed & { token: string };
    vm: Placed;
    /** Where the VM belongs to a project. */
    member?: Placed;
    /** Where the user comes by one. */
    provider?: Placed;
  }
  async function tenant(): Promise<Tenant> {
    const account = await insertAccount(database.db, domain);
    return owner(account, await insertUser(database.db, account, ROLE.user));
  }

  async function owner(account: Placed, user: Placed): Promise<Tenant> {
    const { db } = database;
    const key = await insertApiKey(db, user);
    const vm = await insertVm(db, world, { account_id: account.id });
    for (const { core } of planes) await core.inventory.load();
    return { account, user, key, vm };
  }

  /** Whose user comes by an identity provider. */
  async function external(): Promise<Tenant & { provider: Placed }> {
    const { db } = database;
    const account = await insertAccount(db, domain);
    const provider = await insertIdentityProvider(db, { domain, account, role: { id: ROLE.user } });
    const known = { identity_provider_id: provider.id, external_subject: 'subject' };
    return { ...(await owner(account, await insertUser(db, account, ROLE.user, known))), provider };
  }

  /** Whose VM belongs to a project. */
  async function sharer(): Promise<Tenant> {
    const { db } = database;
    const { user, key } = await tenant();
    const project = await insertAccount(db, domain, { type: 'PROJECT' });
    const member = await insertMember(db, project, { user }, ROLE.user);
    const vm = await insertVm(db, world, { account_id: project.id });
    for (const { core } of planes) await core.inventory.load();
    return { account: project, user, key, vm, member };
  }

  const written = async (transition: Partial<Transition>): Promise<void> => {
    const outcome = await planes[0]!.core.writer.submit({ ...emptyTransition(), ...transition });
    assert.equal(outcome.kind, 'written');
  };
  const rename = ({ vm, account }: Tenant, name: string): Promise<void> =>
    written({
      writes: [patch('vm', vm.id, {}, { name })],
      changes: [{ kind: 'vm', id: vm.id }],
      events: [
        {
          type: 'vm.updated',
          subject: { kind: 'vm', id: vm.id },
          accountId: account.id,
          jobId: null,
          actor: 'test',
          reason: null,
          changes: [{ field: 'name', before: null, after: name }],
        },
      ],
    });

  /** What a client hears, by the name that was given, and how its connection ended. */
  function listen(plane: Control, { key, vm }: Tenant) {
    const heard: string[] = [];
    const awaited = new Map<string, () => void>();
    const closed = Promise.withResolvers<number>();
    const opened = Promise.withResolvers<void>();
    const first = Promise.withResolvers<void>();
    const client: Client = createClient({
      url: `${plane.http.url.replace(/^http/, 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { authorization: `Bearer ${key.token}` },
      retryAttempts: 0,
      lazy: false,
      on: {
        connected: () => opened.resolve(),
        closed: (event) => closed.resolve((event as { code: number }).code),
      },
      onNonLazyError: () => undefined,
    });
    const subscribe = (query: string, nameOf: (data: never) => string): void => {
      client.subscribe(
        { query, variables: { id: encodeId('vm', vm.uid) } },
        {
          next: ({ data }) => {
            const name = nameOf(data as never);
            heard.push(name);
            awaited.get(name)?.();
            first.resolve();
          },
          error: () => undefined,
          complete: () => undefined,
        },
      );
    };
    subscribe(
      'subscription { eventAppended { changes { after } } }',
      (data: { eventAppended: { changes: { after: string }[] } }) => String(data.eventAppended.changes[0]?.after),
    );
    subscribe(
      'subscription ($id: ID!) { vmChanged(id: $id) { name } }',
      (data: { vmChanged: { name: string } }) => data.vmChanged.name,
    );
    const hears = (name: string): Promise<void> =>
      heard.includes(name) ? Promise.resolve() : new Promise((resolve) => awaited.set(name, resolve));
    return { heard, hears, closed: closed.promise, opened: opened.promise, first: first.promise, client };
  }

  /** What each revocation writes; none of them touches what is watched. */
  const REVOCATIONS: Record<string, (tenant: Tenant) => Partial<Transition>> = {
    'a key is revoked': ({ key }) => ({
      writes: [patch('api_key', key.id, {}, { deleted_at: now })],
      changes: [{ kind: 'api_key', id: key.id }],
    }),
    'a user is disabled': ({ user }) => ({
      writes: [patch('user', user.id, {}, { wanted_state: 'DISABLED' })],
      changes: [{ kind: 'user', id: user.id }],
    }),
    'an account is disabled': ({ account }) => ({
      writes: [patch('account', account.id, {}, { wanted_state: 'DISABLED' })],
      changes: [{ kind: 'account', id: account.id }],
    }),
    'a role is taken away': ({ user }) => ({
      writes: [patch('user', user.id, {}, { role_id: ROLE.readOnly })],
      changes: [{ kind: 'user', id: user.id }],
    }),
    'a membership ends': ({ member }) => ({
      writes: [patch('project_member', member!.id, {}, { deleted_at: now })],
      changes: [{ kind: 'project_member', id: member!.id }],
    }),
    'a project is disabled': ({ account }) => ({
      writes: [patch('account', account.id, {}, { wanted_state: 'DISABLED' })],
      changes: [{ kind: 'account', id: account.id }],
    }),
  };
  const OF_PROJECTS = ['a membership ends', 'a project is disabled'];

  for (const [what, revocation] of Object.entries(REVOCATIONS))
    for (const [where, at] of [
      ['here', 0],
      ['at another control plane', 1],
    ] as const)
      it(`hears of none of ${EVENTS} events that come after it, when ${what} ${where}`, async () => {
        const one = await (OF_PROJECTS.includes(what) ? sharer() : tenant());
        const listener = listen(planes[at]!, one);
        await listener.opened;
        await listener.first;
        await written(revocation(one));
        await Promise.all(Array.from({ length: EVENTS }, (_, n) => rename(one, `after-${n}`)));
        assert.equal(await listener.closed, 4403);
        assert.deepEqual(
          listener.heard.filter((name) => name.startsWith('after-')),
          [],
        );
        await listener.client.dispose();
      });

  const OF_PROVIDER = 'the identity provider of its user is disabled';
  /** What ends a session, as it is done; at the first control plane. */
  const ENDS: Record<string, (tenant: Tenant, session: Placed & { token: string }) => Promise<Payload>> = {
    'its user signs out': async (_tenant, session) =>
      planes[0]!.core.ops.signOut(await actorOf(database.db, session.token), {}),
    'it is revoked by its user elsewhere': async ({ user }, session) => {
      const elsewhere = await insertSession(database.db, user);
      const actor = await actorOf(database.db, elsewhere.token);
      return planes[0]!.core.ops.revokeSession(actor, { id: encodeId('session', session.uid) });
    },
    'an operator sets the password': ({ user }) =>
      planes[0]!.core.ops.setPassword(ADMIN, { userId: encodeId('user', user.uid), password: 'correct horse battery' }),
    'its user is disabled': ({ user }) => planes[0]!.core.ops.disableUser(ADMIN, { id: encodeId('user', user.uid) }),
    [OF_PROVIDER]: ({ provider }) =>
      planes[0]!.core.ops.disableIdentityProvider(ADMIN, { id: encodeId('identity_provider', provider!.uid) }),
    'its user is deleted': ({ user }) => planes[0]!.core.ops.deleteUser(ADMIN, { id: encodeId('user', user.uid) }),
  };

  for (const [what, end] of Object.entries(ENDS))
    for (const [where, at] of [
      ['here', 0],
      ['at another control plane', 1],
    ] as const)
      it(`a session hears of none of ${EVENTS} events that come after ${what}, ${where}`, async () => {
        const one = await (what === OF_PROVIDER ? external() : tenant());
        const session = await insertSession(database.db, one.user);
        const listener = listen(planes[at]!, { ...one, key: session });
        await listener.opened;
        await listener.first;
        assert.deepEqual((await end(one, session)).errors, []);
        await Promise.all(Array.from({ length: EVENTS }, (_, n) => rename(one, `after-${n}`)));
        assert.equal(await listener.closed, 4403);
        assert.deepEqual(
          listener.heard.filter((name) => name.startsWith('after-')),
          [],
        );
        await listener.client.dispose();
      });

  it('a session that is old or idle ends what it has open within half a minute', { timeout: 60_000 }, async () => {
    const one = await tenant();
    const began = performance.now();
    const listeners = [];
    for (const ended of [{ expires_at: ago(1_000) }, { last_used_at: ago(SESSION_IDLE_MS + 60_000) }]) {
      const session = await insertSession(database.db, one.user);
      const listener = listen(planes[0]!, { ...one, key: session });
      await listener.first;
      // What was used is written with the next round; here it was long ago.
      await planes[0]!.core.credentialUse.flush();
      await database.db.updateTable('session').set(ended).where('id', '=', session.id).execute();
      listeners.push(listener);
    }
    for (const { closed, client } of listeners) {
      assert.equal(await closed, 4403);
      await client.dispose();
    }
    assert.ok(performance.now() - began < 30_000);
  });

  it('users of a disabled identity provider are nobody, by session and by key, until it is enabled', async () => {
    const { user, key, provider } = await external();
    const { token } = await insertSession(database.db, user);
    const [plane] = planes;
    const id = encodeId('identity_provider', provider.uid);
    const statuses = () =>
      Promise.all(
        [token, key.token].map(async (one) => {
          const response = await fetch(`${plane!.http.url}/graphql`, {
            method: 'POST',
            headers: { 'content-type': 'application/json', authorization: `Bearer ${one}` },
            body: JSON.stringify({ query: '{ viewer { name } }' }),
          });
          return response.status;
        }),
      );
    assert.deepEqual(await statuses(), [200, 200]);
    assert.deepEqual((await plane!.core.ops.disableIdentityProvider(ADMIN, { id })).errors, []);
    assert.deepEqual(await statuses(), [401, 401]);
    assert.deepEqual((await plane!.core.ops.enableIdentityProvider(ADMIN, { id })).errors, []);
    assert.deepEqual(await statuses(), [200, 200]);
  });

  it('an ended domain ends what its accounts have open, and nothing of others', async () => {
    const inside = await tenant();
    const { db } = database;
    const account = await insertAccount(db, await insertDomain(db));
    const user = await insertUser(db, account, ROLE.user);
    const outside: Tenant = {
      account,
      user,
      key: await insertApiKey(db, user),
      vm: await insertVm(db, world, { account_id: account.id }),
    };
    const [ended, lasting] = [listen(planes[1]!, inside), listen(planes[1]!, outside)];
    await Promise.all([ended.first, lasting.first]);
    await written({
      writes: [patch('domain', domain.id, {}, { wanted_state: 'DISABLED' })],
      changes: [{ kind: 'domain', id: domain.id }],
    });
    assert.equal(await ended.closed, 4403);
    await rename(outside, 'still here');
    await lasting.hears('still here');
    const response = await fetch(`${planes[1]!.http.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${inside.key.token}` },
      body: JSON.stringify({ query: '{ viewer { name } }' }),
    });
    assert.equal(response.status, 401);
    for (const { client } of [ended, lasting]) await client.dispose();
  });
});
