import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import type { Payload } from '../../src/ops/context.ts';
import { secretPurpose } from '../../src/ops/identity-provider.ts';
import { ADMIN, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertIdentityProvider,
  insertRole,
  insertUser,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

const OIDC = { issuer: 'https://login.example.com', clientId: 'virtgraph' };
const LDAP = { url: 'ldaps://directory.example.com', baseDn: 'dc=example,dc=com' };

describe('identity providers', () => {
  let database: TestDatabase;
  let core: Core;
  let domain: PlacedDomain;
  let account: Placed;
  let admin: UserActor;
  let role: Placed;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    domain = await insertDomain(db);
    account = await insertAccount(db, domain);
    admin = await insertActor(db, await insertAccount(db, domain), ROLE.domainAdmin);
    role = await insertRole(db);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const ok = (payload: Payload): number => {
    assert.deepEqual(payload.errors, []);
    return payload.id!;
  };
  const rowOf = (id: number) =>
    database.db.selectFrom('identity_provider').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const publicId = async (id: number) => idOf('identity_provider', await rowOf(id));
  const changesOf = async (id: number) =>
    (
      await database.db
        .selectFrom('event')
        .select(['type', 'changes'])
        .where('subject_kind', '=', 'identity_provider')
        .where('subject_id', '=', id)
        .orderBy('seq')
        .execute()
    ).map(({ type, changes }) => [type, JSON.parse(changes)]);
  const input = (more: object = {}) => ({
    accountId: idOf('account', account),
    name: `provider ${Math.random()}`,
    oidc: OIDC,
    roleMapping: [{ group: 'staff', roleId: idOf('role', role) }],
    ...more,
  });
  const systemRole = async (id: number) =>
    idOf('role', await database.db.selectFrom('role').select('uid').where('id', '=', id).executeTakeFirstOrThrow());

  it('is made by the admin of a domain, in the domain of the account', async () => {
    const id = ok(await core.ops.createIdentityProvider(admin, input({ secret: 'a secret' })));
    const row = await rowOf(id);
    assert.deepEqual([row.domain_id, row.account_id, row.type], [domain.id, account.id, 'OIDC']);
    assert.deepEqual(JSON.parse(row.settings), {
      ...OIDC,
      scopes: ['profile'],
      groupsClaim: 'groups',
      vouchesForSecondFactor: false,
      caCertificates: null,
    });
    assert.deepEqual(JSON.parse(row.role_mapping), [{ group: 'staff', roleId: role.id }]);
  });

  it('keeps its secret sealed for itself alone, and tells it in no event', async () => {
    const id = ok(await core.ops.createIdentityProvider(admin, input({ secret: 'canary' })));
    ok(await core.ops.updateIdentityProvider(admin, { id: await publicId(id), secret: 'second canary' }));
    const { secret } = await rowOf(id);
    assert.doesNotMatch(secret!.toString('latin1'), /canary/);
    assert.equal(core.opsContext.sealer.open(secret!, secretPurpose(id)).toString(), 'second canary');
    assert.throws(() => core.opsContext.sealer.open(secret!, secretPurpose(id + 1)));
    const told = await changesOf(id);
    assert.doesNotMatch(JSON.stringify(told), /canary/);
    assert.deepEqual(told.at(-1), ['identity_provider.updated', [{ field: 'secret', before: '***', after: '***' }]]);
    ok(await core.ops.updateIdentityProvider(admin, { id: await publicId(id), secret: '' }));
    assert.equal((await rowOf(id)).secret, null);
  });

  it('tells setting by setting what was changed', async () => {
    const id = ok(await core.ops.createIdentityProvider(admin, input({ oidc: undefined, ldap: LDAP })));
    const ldap = { ...LDAP, url: 'ldaps://other.example.com', groupsAttribute: 'isMemberOf' };
    ok(await core.ops.updateIdentityProvider(admin, { id: await publicId(id), ldap }));
    assert.deepEqual((await changesOf(id)).at(-1)![1], [
      { field: 'url', before: LDAP.url, after: ldap.url },
      { field: 'groupsAttribute', before: 'memberOf', after: 'isMemberOf' },
    ]);
    const { generation } = await rowOf(id);
    ok(await core.ops.updateIdentityProvider(admin, { id: await publicId(id), ldap }));
    assert.equal((await rowOf(id)).generation, generation, 'the same again changes nothing');
  });

  it('gives nobody more than whoever arranges it has', async () => {
    const mapping = [
      { group: 'staff', roleId: idOf('role', role) },
      { group: 'root', roleId: idOf('role', await insertRole(database.db, undefined, { reach: 'ALL' })) },
    ];
    const hidden = refusalOf(await core.ops.createIdentityProvider(admin, input({ roleMapping: mapping })));
    // A role that reaches further than its asker is not there for him.
    assert.deepEqual([hidden.code, hidden.path], ['NOT_FOUND', ['roleMapping', '1', 'roleId']]);
    const zones = await insertRole(database.db, [{ effect: 'ALLOW', verb: 'delete', kind: 'zone' }]);
    const more = [{ group: 'staff', roleId: idOf('role', zones) }];
    const refused = refusalOf(await core.ops.createIdentityProvider(admin, input({ roleMapping: more })));
    assert.deepEqual([refused.code, refused.path], ['FORBIDDEN', ['roleMapping', '0', 'roleId']]);
    assert.match(refused.message, /delete zone/);
  });

  it('of operators, which gives more than a domain admin has, is not led elsewhere by him', async () => {
    const root = await systemRole(ROLE.rootAdmin);
    const id = ok(
      await core.ops.createIdentityProvider(ADMIN, input({ roleMapping: [{ group: 'ops', roleId: root }] })),
    );
    const before = await rowOf(id);
    const evil = { id: await publicId(id), oidc: { issuer: 'https://evil.example.com', clientId: 'x' } };
    for (const payload of [
      await core.ops.updateIdentityProvider(admin, evil),
      await core.ops.updateIdentityProvider(admin, {
        id: evil.id,
        roleMapping: [{ group: '*', roleId: idOf('role', role) }],
      }),
      await core.ops.disableIdentityProvider(admin, { id: evil.id }),
      await core.ops.enableIdentityProvider(admin, { id: evil.id }),
      await core.ops.deleteIdentityProvider(admin, { id: evil.id }),
    ]) {
      const refused = refusalOf(payload);
      assert.deepEqual([refused.code, refused.path], ['FORBIDDEN', ['id']]);
    }
    assert.deepEqual(await rowOf(id), before);
  });

  it('is not there for the admin of a domain beside or below, nor arranged by who reaches an account alone', async () => {
    const id = await publicId(ok(await core.ops.createIdentityProvider(admin, input())));
    const below = await insertActor(
      database.db,
      await insertAccount(database.db, await insertDomain(database.db, domain)),
      ROLE.domainAdmin,
    );
    assert.equal(refusalOf(await core.ops.disableIdentityProvider(below, { id })).code, 'NOT_FOUND');
    assert.equal(refusalOf(await core.ops.createIdentityProvider(below, input())).code, 'NOT_FOUND');
    const all = await insertRole(database.db, [{ effect: 'ALLOW', verb: '*', kind: '*' }]);
    const own = await insertActor(database.db, account, all.id);
    for (const payload of [
      await core.ops.createIdentityProvider(own, input()),
      await core.ops.updateIdentityProvider(own, { id, name: 'mine' }),
      await core.ops.deleteIdentityProvider(own, { id }),
    ])
      assert.equal(refusalOf(payload).code, 'FORBIDDEN');
  });

  it('is not disabled by who comes by it himself, nor by who has less than somebody who does', async () => {
    const { id, uid } = await insertIdentityProvider(database.db, { domain, account, role });
    const known = (subject: string) => ({ identity_provider_id: id, external_subject: subject });
    const self = await insertUser(database.db, account, ROLE.domainAdmin, known('self'));
    const itself = await actorOf(database.db, (await insertApiKey(database.db, self)).token);
    const provider = { id: idOf('identity_provider', { uid }) };
    for (const payload of [
      await core.ops.disableIdentityProvider(itself, provider),
      await core.ops.deleteIdentityProvider(itself, provider),
    ])
      assert.match(refusalOf(payload).message, /You sign in by this identity provider yourself/);
    const stronger = await insertUser(database.db, account, ROLE.rootAdmin, known('stronger'));
    const refused = refusalOf(await core.ops.disableIdentityProvider(admin, provider));
    assert.deepEqual([refused.code, refused.path], ['FORBIDDEN', ['id']]);
    await database.db.deleteFrom('user').where('id', '=', stronger.id).execute();
    ok(await core.ops.disableIdentityProvider(admin, provider));
  });

  it('stays of the type that it is, and is of one', async () => {
    const { name: _, ...rest } = input();
    for (const wrong of [{ oidc: undefined }, { ldap: LDAP }])
      assert.equal(
        refusalOf(await core.ops.createIdentityProvider(admin, { ...rest, name: 'x', ...wrong })).code,
        'INVALID_INPUT',
      );
    const id = await publicId(ok(await core.ops.createIdentityProvider(admin, input())));
    const refused = refusalOf(await core.ops.updateIdentityProvider(admin, { id, ldap: LDAP }));
    assert.deepEqual([refused.code, refused.message], ['INVALID_INPUT', 'It is of type OIDC, and stays so.']);
  });

  it('is deleted when nobody is left who has come by it, and an account not before it', async () => {
    const lonely = await insertAccount(database.db, domain);
    const { id, uid } = await insertIdentityProvider(database.db, { domain, account: lonely, role });
    const user = await insertUser(database.db, lonely, role.id, {
      identity_provider_id: id,
      external_subject: 'subject',
      name: 'anna',
    });
    const kept = refusalOf(await core.ops.deleteIdentityProvider(ADMIN, { id: idOf('identity_provider', { uid }) }));
    assert.match(kept.message, /still has 1 user \(anna\)/);
    const full = refusalOf(await core.ops.deleteAccount(ADMIN, { id: idOf('account', lonely) }));
    assert.match(full.message, /1 user \(anna\) and 1 identity provider/);
    ok(await core.ops.deleteUser(ADMIN, { id: idOf('user', user) }));
    ok(await core.ops.deleteIdentityProvider(ADMIN, { id: idOf('identity_provider', { uid }) }));
    ok(await core.ops.deleteAccount(ADMIN, { id: idOf('account', lonely) }));
  });

  const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  const settings: [kind: 'oidc' | 'ldap', good: object[], bad: [field: string, values: unknown[]][]][] = [
    [
      'oidc',
      [
        { issuer: 'https://login.example.com/realms/acme' },
        { issuer: 'http://127.0.0.1:8080' },
        { issuer: 'http://localhost' },
        { scopes: ['profile', 'groups'], groupsClaim: 'https://example.com/groups' },
      ],
      [
        [
          'issuer',
          [
            'login.example.com',
            'http://login.example.com',
            'http://127.0.0.1.evil.example',
            'ftp://login.example.com',
            'https://user:secret@login.example.com',
            'https://login.example.com/?a=b',
            'https://login.example.com/#a',
            'file:///etc/passwd',
          ],
        ],
        ['clientId', ['', 'a\nb', 'x'.repeat(256)]],
        ['scopes', [['two scopes'], ['']]],
        ['caCertificates', ['nonsense', '', pem]],
      ],
    ],
    [
      'ldap',
      [
        { url: 'ldap://directory.example.com:3389', startTls: true },
        { url: 'ldap://127.0.0.1:3389' },
        { userFilter: '(&(objectClass=user)(sAMAccountName={name}))', subjectAttribute: 'objectGUID' },
        { groupBaseDn: 'ou=groups', groupFilter: '(member:1.2.840.113556.1.4.1941:={dn})' },
      ],
      [
        [
          'url',
          [
            'ldap://directory.example.com',
            'directory.example.com',
            'https://directory.example.com',
            'ldaps://',
            'ldaps://directory.example.com/dc=example',
            'ldaps://a:b@directory.example.com',
          ],
        ],
        ['baseDn', ['']],
        ['userFilter', ['(uid=anna)', 'uid={name}', '(uid={name}', '(&(uid={name})']],
        ['groupFilter', ['(member=cn)', '(member={dn}']],
        ['subjectAttribute', ['', 'entry UUID', '(uid=*)', '1uid']],
        ['caCertificates', ['nonsense']],
      ],
    ],
  ];
  for (const [kind, good, bad] of settings)
    it(`takes settings of ${kind} that are safe, and names what is not`, async () => {
      const base = kind === 'oidc' ? OIDC : LDAP;
      const create = (more: object) =>
        core.ops.createIdentityProvider(admin, input({ oidc: undefined, [kind]: { ...base, ...more } }));
      for (const more of good) ok(await create(more));
      for (const [field, values] of bad)
        for (const value of values) {
          const { errors } = await create({ [field]: value });
          assert.ok(errors.length > 0, `${field} ${JSON.stringify(value)} was accepted`);
          for (const { code, path } of errors)
            assert.deepEqual([code, path?.slice(0, 2)], ['INVALID_INPUT', [kind, field]], JSON.stringify(value));
        }
    });
});
