import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { sealAudit } from '../../src/loops/audit-seal.ts';
import { post } from '../repo/graph-probe.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { idOf, insertAccount, insertApiKey, insertDomain, insertUser, ROLE } from '../support/tenants.ts';
import { insertVm, insertWorld, type Placed } from '../support/world.ts';

const needsDatabase = { skip: process.env['DATABASE_URL'] ? false : 'needs a database: npm test brings one' };
const FIELDS = `seq at action outcome code actor address requestId credentialKind apiKey { id } user { id }
  subject { id __typename } subjectKind subjectId job { id } reason changes { field before after }`;
type Node = Record<string, unknown> & { action: string; outcome: string; actor: string; seq: string };

describe('audit records in the graph', needsDatabase, () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let root: string;
  let owner: Placed & { token: string; userId: string };
  let domainAdmin: Placed & { token: string };
  let sibling: Placed & { token: string };
  let stranger: Placed & { token: string; userId: string };
  let vmId: string;
  let vm: Placed;

  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    folder = await mkdtemp(join(tmpdir(), 'vg-audit-'));
    const world = await insertWorld(db);
    const domain = await insertDomain(db);
    const acme = await insertAccount(db, domain, { name: 'acme' });
    const globex = await insertAccount(db, await insertDomain(db), { name: 'globex' });
    const someone = async (account: Placed, role: number, name: string) => {
      const user = await insertUser(db, account, role, { name });
      return { ...(await insertApiKey(db, user)), userId: idOf('user', user) };
    };
    owner = await someone(acme, ROLE.user, 'olga');
    domainAdmin = await someone(acme, ROLE.domainAdmin, 'dora');
    stranger = await someone(globex, ROLE.user, 'sam');
    sibling = await someone(globex, ROLE.domainAdmin, 'sid');
    vm = await insertVm(db, world, { account_id: acme.id, name: 'web' });
    vmId = idOf('vm', vm);
    const adminTokenPath = join(folder, 'admin-token');
    control = await startControl({
      databaseUrl: database.url,
      host: '127.0.0.1',
      port: 0,
      adminTokenPath,
      log: pino({ level: 'silent' }),
    });
    root = (await readFile(adminTokenPath, 'utf8')).trim();

    const update = 'mutation ($input: UpdateVmInput!) { updateVm(input: $input) { errors { code } } }';
    const rename = (token: string, name: string) =>
      post(control.http.url, token, update, { input: { id: vmId, name, reason: 'asked to' } });
    await rename(owner.token, 'by-its-owner');
    await rename(root, 'by-the-operator');
    await rename(stranger.token, 'by-a-stranger');
    await post(
      control.http.url,
      owner.token,
      'mutation { createZone(input: { name: "mine" }) { errors { code } } }',
      {},
    );
    await post(control.http.url, root, 'mutation { createZone(input: { name: "ours" }) { errors { code } } }', {});
  });
  after(async () => {
    await control?.close();
    await database?.close();
    await rm(folder, { recursive: true });
  });

  async function records(token: string, filter = '', args = ''): Promise<Node[]> {
    const query = `{ auditRecords(${args} filter: { ${filter} }) { totalCount nodes { id ${FIELDS} } } }`;
    const { body } = await post(control.http.url, token, query, {});
    assert.equal(body.errors, undefined, JSON.stringify(body.errors));
    return (body.data!['auditRecords'] as { nodes: Node[] }).nodes;
  }
  const told = (nodes: Node[]) => nodes.map(({ actor, action, outcome }) => `${actor} ${action} ${outcome}`);

  it('are all shown to root, newest first', async () => {
    assert.deepEqual(told(await records(root)), [
      'root createZone ALLOWED',
      'acme/olga createZone REFUSED',
      'globex/sam updateVm REFUSED',
      'root updateVm ALLOWED',
      'acme/olga updateVm ALLOWED',
    ]);
  });

  it('say who, from where, with what, to what, why and what changed', async () => {
    const { id, at, requestId, ...record } = (await records(root, '', 'last: 1'))[0]!;
    assert.equal(id, 'aud_1');
    assert.ok(Math.abs(Date.parse(at as string) - Date.now()) < 3_600_000);
    assert.match(requestId as string, /^[\w-]{36}$/);
    assert.deepEqual(record, {
      seq: '1',
      action: 'updateVm',
      outcome: 'ALLOWED',
      code: null,
      actor: 'acme/olga',
      address: '127.0.0.1',
      credentialKind: 'API_KEY',
      apiKey: { id: idOf('api_key', owner) },
      user: { id: owner.userId },
      subject: { id: vmId, __typename: 'Vm' },
      subjectKind: 'VM',
      subjectId: vmId,
      job: null,
      reason: 'asked to',
      changes: [{ field: 'name', before: 'web', after: 'by-its-owner' }],
    });
  });

  it('tell a domain admin what concerns its tenants, and of operators neither address nor request', async () => {
    const seen = await records(domainAdmin.token);
    assert.deepEqual(told(seen), [
      'acme/olga createZone REFUSED',
      'root updateVm ALLOWED',
      'acme/olga updateVm ALLOWED',
    ]);
    assert.deepEqual(
      seen.map(({ address, requestId }) => [address, requestId === null]),
      [
        ['127.0.0.1', false],
        [null, true],
        ['127.0.0.1', false],
      ],
    );
  });

  it('tell the domain admin of a stranger who guessed, and not whose object it was', async () => {
    const [refused, ...others] = await records(sibling.token);
    assert.deepEqual(others, []);
    const { actor, code, subject, subjectId, address } = refused!;
    assert.deepEqual(
      { actor, code, subject, subjectId, address },
      {
        actor: 'globex/sam',
        code: 'NOT_FOUND',
        subject: null,
        subjectId: vmId,
        address: '127.0.0.1',
      },
    );
  });

  it('are nothing to a user, in lists and one by one', async () => {
    assert.deepEqual(await records(owner.token), []);
    const query = '{ node(id: "aud_1") { id } }';
    const node = async (token: string) => (await post(control.http.url, token, query, {})).body.data!['node'];
    assert.equal(await node(owner.token), null);
    assert.equal(await node(sibling.token), null);
    assert.deepEqual(await node(domainAdmin.token), { id: 'aud_1' });
    assert.deepEqual(await node(root), { id: 'aud_1' });
  });

  describe('exported as JSON lines', () => {
    const get = (token: string | null, query = '', init: RequestInit = {}) =>
      fetch(`${control.http.url}/audit.jsonl${query}`, {
        ...init,
        headers: token === null ? {} : { authorization: `Bearer ${token}` },
      });
    const lines = async (token: string, query = ''): Promise<Record<string, unknown>[]> => {
      const response = await get(token, query);
      assert.equal(response.status, 200);
      return (await response.text())
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    };

    it('hold what the graph shows to the same caller, oldest first', async () => {
      for (const { token } of [{ token: root }, domainAdmin, sibling]) {
        const graph = (await records(token)).reverse();
        assert.deepEqual(
          (await lines(token)).map(({ at, page, ...line }) => ({ ...line, at: Date.parse(at as string) })),
          graph.map((node) => ({
            seq: Number(node.seq),
            at: Date.parse(node['at'] as string),
            action: node.action,
            outcome: node.outcome,
            code: node['code'],
            actor: node.actor,
            userId: (node['user'] as { id: string } | null)?.id ?? null,
            address: node['address'],
            credentialKind: (node['credentialKind'] as string).toLowerCase().replace('_', '-'),
            apiKeyId: (node['apiKey'] as { id: string } | null)?.id ?? null,
            subjectKind: (node['subjectKind'] as string | null)?.toLowerCase() ?? null,
            subjectId: node['subjectId'],
            jobId: null,
            reason: node['reason'],
            changes: node['changes'],
            requestId: node['requestId'],
          })),
        );
      }
    });

    it('are a file that nobody keeps, and say the page that seals each', async () => {
      const { core } = control;
      await sealAudit({ db: core.db, writer: core.writer, log: pino({ level: 'silent' }) }, 0);
      const response = await get(root);
      assert.equal(response.headers.get('content-disposition'), 'attachment; filename="audit.jsonl"');
      assert.equal(response.headers.get('cache-control'), 'no-store');
      assert.match(response.headers.get('content-type')!, /^application\/jsonl/);
      await response.body?.cancel();
      assert.deepEqual(new Set((await lines(root)).map(({ page }) => page)), new Set([1]));
    });

    it('are narrowed as in the graph', async () => {
      const of = async (query: string) => (await lines(root, query)).map(({ seq }) => seq);
      assert.deepEqual(await of('?actor=root'), [2, 5]);
      assert.deepEqual(await of(`?userId=${owner.userId}&outcome=REFUSED`), [4]);
      assert.deepEqual(await of(`?subjectId=${vmId}&action=updateVm`), [1, 2, 3]);
      assert.deepEqual(await of('?to=2020-01-01'), []);
      assert.deepEqual(await of('?from=2020-01-01T00:00:00Z'), [1, 2, 3, 4, 5]);
    });

    it('are refused as everything else is, before a line is sent', async () => {
      const refusal = async (answer: Promise<Response>) => {
        const response = await answer;
        return [response.status, ((await response.json()) as { error: { code: string } }).error.code];
      };
      assert.deepEqual(await refusal(get(null)), [401, 'UNAUTHENTICATED']);
      assert.deepEqual(await refusal(get('vgk_nobody')), [401, 'UNAUTHENTICATED']);
      assert.deepEqual(await refusal(get(owner.token)), [403, 'FORBIDDEN']);
      assert.deepEqual(await refusal(get(root, '', { method: 'POST' })), [405, 'INVALID_INPUT']);
      for (const query of ['?actr=root', '?actor=a&actor=b', '?outcome=no', '?from=soon', '?userId=7', '?subjectId=x'])
        assert.deepEqual(await refusal(get(root, query)), [400, 'INVALID_INPUT'], query);
    });
  });

  it('are verified by operators alone', async () => {
    const query = '{ auditVerification { intact firstBroken { page what } complete records head { page hash } } }';
    const { body } = await post(control.http.url, root, query, {});
    const { head, ...found } = body.data!['auditVerification'] as { head: { hash: string } };
    assert.deepEqual(found, { intact: true, firstBroken: null, complete: true, records: 5 });
    assert.match(head.hash, /^[0-9a-f]{64}$/);
    const refused = await post(control.http.url, domainAdmin.token, query, {});
    assert.equal(refused.body.errors![0]!.extensions.code, 'FORBIDDEN');
    await database.db.updateTable('audit').set({ actor: 'nobody' }).where('seq', '=', 2).execute();
    const broken = await post(control.http.url, root, query, {});
    const { intact, firstBroken } = broken.body.data!['auditVerification'] as Record<string, unknown>;
    assert.deepEqual(
      { intact, firstBroken },
      { intact: false, firstBroken: { page: 1, what: 'A record was changed.' } },
    );
    await database.db.updateTable('audit').set({ actor: 'root' }).where('seq', '=', 2).execute();
  });

  it('are narrowed by actor, user, subject, action, outcome and time', async () => {
    const of = async (filter: string, token = root) => (await records(token, filter)).map(({ seq }) => seq);
    assert.deepEqual(await of('actor: "root"'), ['5', '2']);
    assert.deepEqual(await of(`userId: "${owner.userId}"`), ['4', '1']);
    assert.deepEqual(await of(`userId: "${stranger.userId}"`, domainAdmin.token), [], 'whom it can not see');
    assert.deepEqual(await of(`subjectId: "${vmId}"`), ['3', '2', '1'], 'whoever was refused it too');
    assert.deepEqual(await of(`subjectId: "${vmId}"`, sibling.token), []);
    assert.deepEqual(await of('action: "createZone"'), ['5', '4']);
    assert.deepEqual(await of('outcome: REFUSED'), ['4', '3']);
    assert.deepEqual(await of('outcome: REFUSED, action: "updateVm", actor: "globex/sam"'), ['3']);
    await database.db
      .updateTable('audit')
      .set({ recorded_at: '2026-01-02 03:04:05.000006' })
      .where('seq', '=', 1)
      .execute();
    assert.deepEqual(await of('to: "2026-01-02T03:04:06Z"'), ['1']);
    assert.deepEqual(await of('from: "2026-01-02T03:04:05Z", to: "2026-01-02T03:04:06Z"'), ['1']);
    assert.deepEqual(await of('to: "2026-01-02T03:04:05Z"'), []);
    assert.deepEqual(await of('from: "2026-01-02T03:04:06Z"'), ['5', '4', '3', '2']);
  });

  it('come in pages, forwards and backwards', async () => {
    const page = async (args: string) => {
      const query = `{ auditRecords(${args}) { nodes { seq } pageInfo { endCursor hasNextPage } } }`;
      return (await post(control.http.url, root, query, {})).body.data!['auditRecords'] as {
        nodes: { seq: string }[];
        pageInfo: { endCursor: string; hasNextPage: boolean };
      };
    };
    const first = await page('first: 3');
    const second = await page(`first: 3, after: "${first.pageInfo.endCursor}"`);
    assert.deepEqual(
      [...first.nodes, ...second.nodes].map(({ seq }) => seq),
      ['5', '4', '3', '2', '1'],
    );
    assert.equal(second.pageInfo.hasNextPage, false);
  });
});
