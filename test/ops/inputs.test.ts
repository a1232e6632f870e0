import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { headSeq } from '../../src/db/feed.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { Payload } from '../../src/ops/context.ts';
import { INPUTS } from '../../src/ops/inputs.ts';
import { ADMIN, openCore } from '../support/core.ts';
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
} from '../support/tenants.ts';
import { insertJob, insertVm, insertWorld, type World } from '../support/world.ts';

type Input = Record<string, unknown>;
type MutationName = Exclude<keyof Core['ops'], 'explainPlacement' | 'deletionPlan'>;

const FAMILY = '👨‍👩‍👧‍👦';
/** Names that people have. */
const GOOD_NAMES: Record<string, string> = {
  'one character': 'a',
  '255 characters': 'n'.repeat(255),
  '255 characters outside the first plane': '😀'.repeat(255),
  'an emoji of several': FAMILY,
  'right to left': 'מכונה וירטואלית',
  Arabic: 'خادم الويب',
  'combining marks': 'Zürich',
  Chinese: '生产环境',
  'spaces inside': 'web server  1',
  'what would be dangerous elsewhere': `'; DROP TABLE zone; -- <script>\${}$(id)`,
};
const RULE = { effect: 'ALLOW', verb: 'read', kind: 'vm' };
const BAD_NAMES: Record<string, unknown> = {
  empty: '',
  'only spaces': '   ',
  'a space in front': ' a',
  'a space behind': 'a ',
  '256 characters': 'n'.repeat(256),
  '256 characters outside the first plane': '😀'.repeat(256),
  'a line break': 'a\nb',
  'a NUL': 'a\0b',
  'an escape': 'a\u001b[31mb',
  'a C1 control': 'a\u0085b',
  'a line separator': 'a\u2028b',
  'half a pair': 'a\ud83d',
  'a number': 7,
  'no name': undefined,
};

/** Too short, also when an accent is written by itself; too long; and what no keyboard gives. */
const PASSWORDS_REFUSED = [
  '',
  'p'.repeat(11),
  'a\u0308'.repeat(6),
  'p'.repeat(1_025),
  '😀'.repeat(1_025),
  'p'.repeat(1_000_000),
  'correct\0horse battery',
  'correct\nhorse battery',
  `correct horse \ud83d`,
  7,
];

describe('inputs', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  let ids: Record<string, string>;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    const vm = await insertVm(database.db, world);
    const job = await insertJob(database.db, vm);
    const domain = await insertDomain(database.db);
    const account = await insertAccount(database.db, domain);
    const role = await insertRole(database.db);
    const user = await insertUser(database.db, account, role.id);
    core = await openCore(database.url);
    const project = await insertAccount(database.db, domain, { type: 'PROJECT' });
    const member = await insertMember(database.db, project, { user }, role.id);
    ids = {
      member: encodeId('project_member', member.uid),
      zone: encodeId('zone', world.zone.uid),
      pod: encodeId('pod', world.pod.uid),
      cluster: encodeId('cluster', world.cluster.uid),
      host: encodeId('host', world.hosts[0]!.uid),
      storage: encodeId('primary_storage', world.storage.uid),
      offering: encodeId('offering', world.offering.uid),
      template: encodeId('template', world.template.uid),
      vm: encodeId('vm', vm.uid),
      job: encodeId('job', job.uid),
      domain: encodeId('domain', domain.uid),
      parent: encodeId('domain', (await insertDomain(database.db)).uid),
      account: encodeId('account', account.uid),
      role: encodeId('role', role.uid),
      user: encodeId('user', user.uid),
      identityProvider: encodeId(
        'identity_provider',
        (await insertIdentityProvider(database.db, { domain, account, role })).uid,
      ),
      apiKey: encodeId('api_key', (await insertApiKey(database.db, user)).uid),
      session: encodeId('session', (await insertSession(database.db, user)).uid),
    };
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  /** One valid input for each; tests change one field. */
  const valid = (): Record<string, Input> => ({
    createZone: { name: 'z' },
    updateZone: { id: ids['zone'], name: 'z2' },
    createPod: { zoneId: ids['zone'], name: 'p' },
    updatePod: { id: ids['pod'], name: 'p2' },
    createCluster: { podId: ids['pod'], name: 'c' },
    updateCluster: { id: ids['cluster'], name: 'c2' },
    createHostJoinToken: { clusterId: ids['cluster'] },
    updateHost: { id: ids['host'], name: 'h2' },
    revokeHostCertificate: { id: ids['host'] },
    createPrimaryStorage: { clusterId: ids['cluster'], name: 's', path: '/srv/s', capacityGib: 1 },
    updatePrimaryStorage: { id: ids['storage'], name: 's2' },
    createOffering: { name: 'o', vcpus: 1, memoryMib: 64 },
    updateOffering: { id: ids['offering'], name: 'o2' },
    registerTemplate: { zoneId: ids['zone'], name: 't', fileName: 'a.qcow2', format: 'QCOW2' },
    updateTemplate: { id: ids['template'], name: 't2' },
    createDomain: { parentId: ids['domain'], name: 'd' },
    moveDomain: { id: ids['domain'], parentId: ids['parent'] },
    enableDomain: { id: ids['domain'] },
    disableDomain: { id: ids['domain'], stopVms: true },
    deleteDomain: { id: ids['domain'], dryRun: true },
    updateDomain: { id: ids['domain'], name: 'd2' },
    createAccount: { domainId: ids['domain'], name: 'a' },
    moveAccount: { id: ids['account'], domainId: ids['parent'] },
    enableAccount: { id: ids['account'] },
    disableAccount: { id: ids['account'], stopVms: true },
    deleteAccount: { id: ids['account'], dryRun: true },
    updateAccount: { id: ids['account'], name: 'a2' },
    addProjectMember: { projectId: ids['account'], userId: ids['user'], roleId: ids['role'] },
    updateProjectMember: { id: ids['member'], roleId: ids['role'] },
    removeProjectMember: { id: ids['member'] },
    updateQuota: { accountId: ids['account'], limits: [{ resource: 'VMS', limit: 1 }] },
    createUser: { accountId: ids['account'], roleId: ids['role'], name: 'u' },
    updateUser: { id: ids['user'], name: 'u2' },
    createApiKey: { userId: ids['user'], name: 'k' },
    revokeApiKey: { id: ids['apiKey'] },
    beginOidcSignIn: { provider: encodeId('identity_provider', Buffer.alloc(16, 9)) },
    signIn: { account: 'a', user: 'u', password: 'p' },
    signOut: {},
    revokeSession: { id: ids['session'] },
    setPassword: { userId: ids['user'], password: 'correct horse battery' },
    changePassword: { currentPassword: 'p', newPassword: 'correct horse battery' },
    beginTotp: {},
    confirmTotp: { code: '123456' },
    removeTotp: {},
    createRole: { name: 'r', reach: 'ACCOUNT', rules: [RULE] },
    updateRole: { id: ids['role'], name: 'r2' },
    deleteRole: { id: ids['role'] },
    createIdentityProvider: {
      accountId: ids['account'],
      name: 'i',
      oidc: { issuer: 'https://login.example.com', clientId: 'virtgraph' },
      roleMapping: [{ group: '*', roleId: ids['role'] }],
    },
    updateIdentityProvider: { id: ids['identityProvider'], name: 'i2' },
    createVm: { name: 'v', zoneId: ids['zone'], offeringId: ids['offering'], templateId: ids['template'] },
    updateVm: { id: ids['vm'], name: 'v2' },
    startVm: { id: ids['vm'] },
    stopVm: { id: ids['vm'] },
    rebootVm: { id: ids['vm'] },
    resetVm: { id: ids['vm'] },
    pauseVm: { id: ids['vm'] },
    resumeVm: { id: ids['vm'] },
    destroyVm: { id: ids['vm'] },
    recoverVm: { id: ids['vm'] },
    expungeVm: { id: ids['vm'] },
    cancelJob: { id: ids['job'] },
    retryJob: { id: ids['job'] },
    resolveJob: { id: ids['job'], resolution: 'RETRY_STEP' },
    enableZone: { id: ids['zone'] },
    deleteHost: { id: ids['host'] },
  });
  const run = (mutation: string, input: unknown): Promise<Payload> => core.ops[mutation as MutationName](ADMIN, input);

  async function refused(mutation: string, change: Input, path: string): Promise<void> {
    const before = await headSeq(database.db);
    const payload = await run(mutation, { ...valid()[mutation], ...change });
    const what = `${mutation} ${JSON.stringify(change).slice(0, 80)}`;
    assert.deepEqual([payload.id, payload.jobId], [null, null], what);
    assert.ok(payload.errors.length > 0, `${what} was accepted`);
    for (const error of payload.errors) {
      assert.deepEqual([error.code, error.path], ['INVALID_INPUT', [path]], what);
      assert.ok(error.message.length > 0);
    }
    assert.equal(await headSeq(database.db), before, `${what} wrote something`);
  }

  it('every mutation is tried', () => {
    const tried = new Set(Object.keys(valid()));
    assert.deepEqual(
      Object.keys(INPUTS).filter((name) => !tried.has(name)),
      [],
    );
  });

  it('a name may be whatever people call things', async () => {
    for (const [what, name] of Object.entries(GOOD_NAMES)) {
      const payload = await run('createZone', { name });
      assert.deepEqual(payload.errors, [], what);
      const row = await database.db.selectFrom('zone').select('name').where('id', '=', payload.id!).executeTakeFirst();
      assert.equal(row?.name, name, what);
    }
  });

  it('every name is refused that is too long, empty or not shown as it is', async () => {
    const named = Object.entries(valid()).filter(([, input]) => 'name' in input);
    assert.ok(named.length > 12);
    for (const [mutation] of named)
      for (const [what, name] of Object.entries(BAD_NAMES)) {
        if (name === undefined && mutation.startsWith('update')) continue;
        await refused(mutation, { name }, 'name').catch((error: unknown) => {
          throw new Error(`${what}: ${(error as Error).message}`);
        });
      }
  });

  it('reason and idempotency key have limits, on every mutation that has them', async () => {
    const without = (field: string) =>
      Object.entries(INPUTS).flatMap(([mutation, { shape }]) => (field in shape ? [] : [mutation]));
    assert.deepEqual(without('reason'), ['signIn', 'beginOidcSignIn']);
    // Of what is told once, or may not be kept as a fast hash.
    assert.deepEqual(without('idempotencyKey'), [
      'signIn',
      'beginOidcSignIn',
      'signOut',
      'setPassword',
      'changePassword',
      'beginTotp',
      'confirmTotp',
      'removeTotp',
    ]);
    for (const mutation of Object.keys(valid())) {
      if (without('reason').includes(mutation)) continue;
      await refused(mutation, { reason: 'r'.repeat(1_025) }, 'reason');
      await refused(mutation, { reason: 7 }, 'reason');
      // A join token has no idempotency.
      if (mutation === 'createHostJoinToken' || without('idempotencyKey').includes(mutation)) continue;
      await refused(mutation, { idempotencyKey: 'k'.repeat(129) }, 'idempotencyKey');
      await refused(mutation, { idempotencyKey: '' }, 'idempotencyKey');
    }
    const longest = { name: 'longest', reason: '😀'.repeat(1_024), idempotencyKey: '😀'.repeat(128) };
    assert.deepEqual((await run('createZone', longest)).errors, []);
    assert.deepEqual((await run('createZone', { name: 'nulls', reason: null, idempotencyKey: null })).errors, []);
  });

  it('every id must be there, and a text', async () => {
    for (const [mutation, input] of Object.entries(valid()))
      for (const field of Object.keys(input).filter((key) => key === 'id' || key.endsWith('Id')))
        for (const value of [undefined, null, 5, {}]) await refused(mutation, { [field]: value }, field);
  });

  it('domains, accounts and users have names that nobody takes for another, in one form', async () => {
    const bad = {
      'a Cyrillic letter among Latin ones': 'p\u0430ypal',
      'Cyrillic letters that all look Latin': '\u0430\u0440\u0440\u0435',
      'a Greek letter among Latin ones': 'alph\u03b1',
      'full-width letters': '\uff41dmin',
      'a ligature': 'o\ufb03ce',
      'a joiner that nobody sees': 'ad\u200dmin',
      'a soft hyphen': 'ad\u00admin',
      'a change of direction': 'ad\u202emin',
      'a slash': 'a/b',
    };
    for (const mutation of ['Domain', 'Account', 'User'].flatMap((noun) => [`create${noun}`, `update${noun}`]))
      for (const [what, name] of Object.entries(bad))
        await refused(mutation, { name }, 'name').catch((error: unknown) => {
          throw new Error(`${what}: ${(error as Error).message}`);
        });
    for (const name of ['Zu\u0308rich', 'Москва', 'Ελλάδα', '生产 team', 'web server  1', 'מכונה', 'a+b@example.com']) {
      const { id, errors } = await run('createAccount', { ...valid()['createAccount'], name });
      assert.deepEqual(errors, [], name);
      const row = await database.db.selectFrom('account').select('name').where('id', '=', id!).executeTakeFirst();
      assert.equal(row?.name, name.normalize('NFC'));
    }
    const again = await run('createAccount', { ...valid()['createAccount'], name: 'Z\u00fcrich' });
    assert.equal(again.errors[0]?.code, 'ALREADY_EXISTS');
  });

  const limits: [string, string, good: unknown[], bad: unknown[]][] = [
    [
      'createCluster',
      'vcpuOvercommit',
      [0.1, 32, null],
      [0.09, 32.01, 0, -1, Number.NaN, Number.POSITIVE_INFINITY, '1'],
    ],
    ['createCluster', 'memoryOvercommit', [0.1, 32], [0.09, 32.01]],
    ['createHostJoinToken', 'maxHosts', [1, 10_000], [0, 10_001, 1.5]],
    ['createHostJoinToken', 'expiresInMs', [1_000, 604_800_000], [999, 604_800_001]],
    ['createPrimaryStorage', 'capacityGib', [1, 1_048_576], [0, 1_048_577, 1.5, null]],
    [
      'createPrimaryStorage',
      'path',
      ['/', '/a b/ü', `/${'p'.repeat(1_023)}`],
      ['', 'srv', './srv', '/a/../b', '/..', '/a\0b', '/a\nb', `/${'p'.repeat(1_024)}`],
    ],
    ['createOffering', 'vcpus', [1, 256], [0, 257, -1, 1.5, null]],
    ['createOffering', 'memoryMib', [64, 4_194_304], [63, 4_194_305]],
    ['createOffering', 'diskGib', [1, 65_536, null], [0, 65_537]],
    ['registerTemplate', 'fileName', [], ['', '.hidden', '-rf', 'a/b', '../a', 'a b', 'ä.img', 'a\n', 'a'.repeat(256)]],
    ['registerTemplate', 'format', [], ['VMDK', 'qcow2', null]],
    ['createApiKey', 'expiresInMs', [1_000, 315_360_000_000, null], [999, 315_360_000_001, 1_000.5, '1000']],
    ['createUser', 'password', ['p'.repeat(12), 'ä'.repeat(1_024), null], PASSWORDS_REFUSED],
    ['setPassword', 'password', ['p'.repeat(12)], [...PASSWORDS_REFUSED, null]],
    ['changePassword', 'newPassword', [], PASSWORDS_REFUSED],
    ['changePassword', 'currentPassword', [], ['p'.repeat(1_025), 'nul\0nul', null]],
    ['signIn', 'password', [], ['p'.repeat(1_025), 'p'.repeat(1_000_000), 'nul\0nul', 'half \udc00', null]],
    ['signIn', 'account', [], ['a'.repeat(256), null]],
    ['signIn', 'code', [], ['1'.repeat(65), 123456]],
    ['createRole', 'reach', ['ALL', 'DOMAIN'], ['all', 'ZONE', null]],
    ['createRole', 'rules', [[], Array(200).fill(RULE)], [null, 'all', Array(201).fill(RULE)]],
    ['updateRole', 'reach', [], ['NOBODY']],
    ['createVm', 'accountId', [], ['x', 5, 'acc_']],
    ['createVm', 'description', [], ['d'.repeat(4_097), 7, 'half \udc00']],
    ['createVm', 'start', [], ['yes', 1]],
    ['updateVm', 'description', ['d'.repeat(4_096), '😀'.repeat(4_096), 'two\nlines', ''], ['d'.repeat(4_097)]],
    ['updateZone', 'expectedGeneration', [null], [1.5, '1']],
    ['updatePrimaryStorage', 'capacityGib', [1_048_576], [0, 1_048_577]],
    ['stopVm', 'timeoutMs', [], [999, 3_600_001, 1_000.5]],
    ['stopVm', 'force', [], ['true']],
    ['rebootVm', 'timeoutMs', [], [999, 3_600_001]],
    ['rebootVm', 'forceAfterTimeout', [], [1]],
    ['resolveJob', 'resolution', [], ['GIVE_UP', null]],
  ];
  for (const [mutation, field, good, bad] of limits) {
    it(`${mutation} takes ${field} up to its limits and not beyond`, async () => {
      for (const value of bad) await refused(mutation, { [field]: value }, field);
      for (const [n, value] of good.entries()) {
        const name = mutation.startsWith('create') ? { name: `${mutation} ${field} ${n}` } : {};
        const payload = await run(mutation, { ...valid()[mutation], ...name, [field]: value });
        assert.deepEqual(payload.errors, [], String(value).slice(0, 40));
      }
    });
  }

  it('a join token is for new hosts of a cluster or for one that is there, not for both and not for none', async () => {
    const { createHostJoinToken: cluster, updateHost: host } = valid() as Record<string, Record<string, unknown>>;
    const both = { ...cluster, hostId: host!['id'] };
    await refused('createHostJoinToken', { hostId: host!['id'] }, 'clusterId');
    for (const [input, path] of [
      [both, 'clusterId'],
      [{}, 'clusterId'],
      [{ hostId: host!['id'], maxHosts: 2 }, 'maxHosts'],
    ] as const) {
      const { errors } = await run('createHostJoinToken', input);
      assert.deepEqual([errors[0]?.code, errors[0]?.path], ['INVALID_INPUT', [path]]);
    }
    assert.deepEqual((await run('createHostJoinToken', { hostId: host!['id'], maxHosts: 1 })).errors, []);
  });

  it('a rule has an effect, a verb and a kind that there are', async () => {
    for (const [field, value] of Object.entries({ effect: 'MAYBE', verb: 'steal', kind: 'zeppelin' })) {
      const { errors } = await run('createRole', {
        ...valid()['createRole'],
        rules: [RULE, { ...RULE, [field]: value }],
      });
      assert.deepEqual([errors[0]?.code, errors[0]?.path], ['INVALID_INPUT', ['rules', '1', field]]);
    }
  });

  it('what is no input at all is refused', async () => {
    for (const raw of [null, undefined, 'x', 7, []]) {
      const payload = await run('createZone', raw);
      assert.equal(payload.errors[0]?.code, 'INVALID_INPUT');
    }
  });

  it('an id of nothing is not found, and what is no id of this kind is refused, each at its path', async () => {
    const kinds = Object.keys(ids);
    for (const [mutation, input] of Object.entries(valid())) {
      for (const field of Object.keys(input).filter((key) => key === 'id' || key.endsWith('Id'))) {
        const id = String(input[field]);
        const other = ids[kinds.find((kind) => ids[kind] !== id)!]!;
        for (const wrong of ['', 'x', "' OR 1=1", `${id} `, id.toUpperCase(), other])
          await refused(mutation, { [field]: wrong }, field);
        const unknown = `${id.slice(0, -1)}${id.endsWith('z') ? '0' : 'z'}`;
        const [error] = (await run(mutation, { ...input, [field]: unknown })).errors;
        assert.deepEqual([error?.code, error?.path], ['NOT_FOUND', [field]], `${mutation} ${field}`);
      }
    }
  });

  it('nobody may do anything without a token', async () => {
    const before = await headSeq(database.db);
    for (const [mutation, input] of Object.entries(valid()).filter(
      ([name]) => name !== 'signIn' && name !== 'beginOidcSignIn',
    ))
      await assert.rejects(core.ops[mutation as MutationName]({ kind: 'anonymous' }, input), {
        code: 'UNAUTHENTICATED',
      });
    assert.equal(await headSeq(database.db), before);
  });
});
