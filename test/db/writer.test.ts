import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { ResultSetHeader } from 'mysql2';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { startMariaDb } from '../../setup/mariadb.ts';
import { isOutage } from '../../src/db/failure.ts';
import { newUid } from '../../src/db/ids.ts';
import { Inventory } from '../../src/db/inventory.ts';
import { migrate } from '../../src/db/migrate.ts';
import { openDatabase, openPool } from '../../src/db/pool.ts';
import {
  absent,
  emptyTransition,
  hold,
  holdEnabled,
  insert,
  patch,
  plus,
  type Transition,
  takeHost,
  type Write,
} from '../../src/db/transition.ts';
import { Writer } from '../../src/db/writer.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertHost, insertWorld, insertZone, type World } from '../support/world.ts';

let nextId = 2 ** 30;
const zone = (name: string, id = ++nextId): Transition => ({
  ...emptyTransition(),
  writes: [insert('zone', { id, uid: newUid(), name })],
  changes: [{ kind: 'zone', id }],
});
const writing = (...writes: Write[]): Transition => ({ ...emptyTransition(), writes });

describe('the writer', () => {
  let database: TestDatabase;
  let world: World;
  let writer: Writer;
  let committed: Transition[][];
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2 });
  });
  beforeEach(() => {
    committed = [];
    writer = newWriter();
  });
  after(() => database.close());

  const newWriter = (pool: Pool = database.pool.promise()): Writer =>
    new Writer({
      tenancy: new Inventory(database.db),
      pool,
      db: database.db,
      origin: randomUUID(),
      isElsewhere: () => false,
      onCommit: (written) => committed.push(written),
    });
  const zoneNames = async (like: string): Promise<string[]> =>
    (await database.db.selectFrom('zone').select('name').where('name', 'like', like).orderBy('name').execute()).map(
      (row) => row.name,
    );
  const used = async (): Promise<number> =>
    (
      await database.db
        .selectFrom('host')
        .select('vcpus_used')
        .where('id', '=', world.hosts[0]!.id)
        .executeTakeFirstOrThrow()
    ).vcpus_used;

  /** A pool over the real one, whose connections do something else with some statements. */
  const meddling = (
    query: (connection: PoolConnection, text: string, run: () => Promise<unknown>) => Promise<unknown>,
  ): Pool =>
    new Proxy(database.pool.promise(), {
      get(pool, name) {
        if (name !== 'getConnection') return Reflect.get(pool, name);
        return async () => {
          const connection = await pool.getConnection();
          return new Proxy(connection, {
            get(target, property) {
              if (property === 'query')
                return (options: string | { sql: string }) =>
                  query(target, typeof options === 'string' ? options : options.sql, () =>
                    target.query(options as string),
                  );
              const value: unknown = Reflect.get(target, property);
              return typeof value === 'function' ? value.bind(target) : value;
            },
          });
        };
      },
    });

  it('writes what comes together in few transactions, and tells of it before its authors hear', async () => {
    const order: string[] = [];
    const results = await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        const outcome = await writer.submit(zone(`batch-${String(n).padStart(3, '0')}`));
        if (order.length === 0) order.push(committed.length > 0 ? 'told first' : 'told late');
        return outcome.kind;
      }),
    );
    assert.deepEqual([...new Set(results)], ['written']);
    assert.equal((await zoneNames('batch-%')).length, 200);
    assert.equal(writer.counts.transactions, Math.ceil(200 / 64));
    assert.equal(writer.counts.transitions, 200);
    assert.deepEqual(order, ['told first']);
    assert.equal(committed.flat().length, 200);
  });

  it('writes one alone at once, without waiting for company', async () => {
    assert.deepEqual(await writer.submit(zone('alone')), { kind: 'written' });
    assert.equal(writer.counts.transactions, 1);
    await writer.drained();
  });

  it('isolates what is refused: its neighbours are written', async () => {
    const taken = await insertZone(database.db, { name: 'taken' });
    const transitions = [
      ...Array.from({ length: 20 }, (_, n) => zone(`neighbour-${n}`)),
      zone('taken'),
      writing(patch('zone', taken.id, { generation: 99 }, { name: 'never' })),
      writing(takeHost(world.hosts[0]!.id, 65, 1)),
      writing(hold('zone', 1)),
      ...Array.from({ length: 20 }, (_, n) => zone(`neighbour-${n + 20}`)),
    ];
    const outcomes = await Promise.all(transitions.map((t) => writer.submit(t)));
    assert.deepEqual(
      outcomes.filter((o) => o.kind !== 'written'),
      [{ kind: 'duplicate', key: 'zone_live_name' }, { kind: 'stale' }, { kind: 'full' }, { kind: 'gone' }],
    );
    assert.equal((await zoneNames('neighbour-%')).length, 40);
    assert.deepEqual([writer.counts.stale, writer.counts.full, writer.counts.gone], [1, 1, 1]);
    assert.equal(await used(), 0);
  });

  it('says gone for a parent that is deleted or, where it matters, disabled; stale for what is not empty', async () => {
    const off = await insertZone(database.db, { wanted_state: 'DISABLED' });
    const deleted = await insertZone(database.db, { deleted_at: new Date() });
    const kinds = await Promise.all(
      [
        writing(hold('zone', off.id)),
        writing(holdEnabled('zone', off.id)),
        writing(hold('zone', deleted.id)),
        writing(absent('pod', 'zone_id', world.zone.id)),
        writing(absent('pod', 'zone_id', off.id)),
      ].map(async (t) => (await writer.submit(t)).kind),
    );
    assert.deepEqual(kinds, ['written', 'gone', 'gone', 'stale', 'written']);
  });

  it('writes the same move once when it is submitted twice in one batch', async () => {
    const one = await insertZone(database.db, { name: 'moved once' });
    const move = (): Transition => ({
      ...writing(patch('zone', one.id, { generation: 1 }, { generation: plus(1) }), takeHost(world.hosts[1]!.id, 1, 1)),
      events: [
        {
          type: 'zone.updated',
          subject: { kind: 'zone', id: one.id },
          jobId: null,
          actor: 'a',
          reason: null,
          changes: [],
        },
      ],
    });
    const outcomes = await Promise.all([writer.submit(move()), writer.submit(move())]);
    assert.deepEqual(outcomes.map((o) => o.kind).sort(), ['stale', 'written']);
    const events = await database.db.selectFrom('event').select('seq').where('subject_id', '=', one.id).execute();
    assert.equal(events.length, 1);
  });

  it('calls stale, not written, a move whose rows somebody else has inserted already', async () => {
    const job = { id: ++nextId, uid: newUid() };
    await database.db
      .insertInto('job')
      .values({
        ...job,
        kind: 'START_VM',
        workflow_version: 1,
        state: 'RUNNING',
        step: 2,
        target_kind: 'vm',
        target_id: 1,
        actor: 'a',
        reason: null,
        input: '{}',
        context: '{}',
        lease_epoch: 2,
      })
      .execute();
    const step = {
      job_id: job.id,
      seq: 2,
      name: 'x',
      direction: 'DO',
      state: 'OPEN',
      host_id: null,
      command: null,
      payload: null,
    } as const;
    await database.db.insertInto('job_step').values(step).execute();
    const late = writing(
      patch('job', job.id, { step: 1, lease_epoch: 1 }, { step: 2 }),
      insert('job_step', { ...step, name: 'y' }),
    );
    assert.deepEqual(await writer.submit(late), { kind: 'stale' });
    assert.deepEqual(committed, []);
  });

  it('tries again after a deadlock', async () => {
    const [a, b] = [await insertZone(database.db), await insertZone(database.db)];
    // Holds b and then wants a, while the writer holds a and wants b: patches of one table go by ascending id.
    const other = await database.pool.promise().getConnection();
    await other.query('START TRANSACTION');
    await other.query('UPDATE zone SET name = CONCAT(name, "x") WHERE id = ?', [b.id]);
    // So that the other is not the one to be chosen.
    for (let i = 0; i < 50; i++)
      await other.query('INSERT INTO zone (id, uid, name) VALUES (?, ?, ?)', [++nextId, newUid(), `heavy-${nextId}`]);
    const both = writing(
      patch('zone', a.id, {}, { wanted_state: 'DISABLED' }),
      patch('zone', b.id, {}, { wanted_state: 'DISABLED' }),
    );
    const wantsB = Promise.withResolvers<void>();
    const stubborn = newWriter(
      meddling((_connection, text, run) => {
        if (text.includes('START TRANSACTION')) wantsB.resolve();
        return run();
      }),
    );
    const outcome = stubborn.submit(both);
    await wantsB.promise;
    await other.query('UPDATE zone SET name = CONCAT(name, "x") WHERE id = ?', [a.id]);
    await other.query('COMMIT');
    other.release();
    assert.deepEqual(await outcome, { kind: 'written' });
    const rows = await database.db.selectFrom('zone').select('wanted_state').where('id', 'in', [a.id, b.id]).execute();
    assert.deepEqual(
      rows.map((r) => r.wanted_state),
      ['DISABLED', 'DISABLED'],
    );
  });

  for (const [name, code] of [
    ['a deadlock', 'ER_LOCK_DEADLOCK'],
    ['a lock wait that ran out', 'ER_LOCK_WAIT_TIMEOUT'],
    ['a record that changed', 'ER_CHECKREAD'],
    ['a lost connection', 'ECONNRESET'],
  ] as const) {
    it(`tries again after ${name}`, async () => {
      let failures = 0;
      const unlucky = newWriter(
        meddling((_connection, text, run) => {
          if (!text.includes('START TRANSACTION') || failures === 2) return run();
          failures++;
          return Promise.reject(Object.assign(new Error(code), { code }));
        }),
      );
      assert.deepEqual(await unlucky.submit(zone(`after ${name}`)), { kind: 'written' });
      assert.equal(unlucky.counts.retries, 2);
      assert.deepEqual(await zoneNames(`after ${name}`), [`after ${name}`]);
    });
  }

  for (const [when, marker] of [
    ['before its first statement', 'START TRANSACTION'],
    ['between its statements and the commit', 'COMMIT'],
  ] as const) {
    it(`writes once when its connection is killed ${when}`, async () => {
      let kills = 0;
      const killed = newWriter(
        meddling(async (connection, text, run) => {
          if (text.includes(marker) && kills++ === 0) {
            const [rows] = await connection.query<never>('SELECT CONNECTION_ID() AS id');
            const ended = new Promise((resolve) => connection.connection.once('end', resolve));
            await database.pool.promise().query<ResultSetHeader>(`KILL ${(rows as { id: number }[])[0]!.id}`);
            await ended;
          }
          return run();
        }),
      );
      const name = `killed ${when}`;
      assert.deepEqual(await killed.submit(zone(name)), { kind: 'written' });
      assert.deepEqual(await zoneNames(name), [name]);
      assert.equal(killed.counts.retries, 1);
    });
  }

  it('ends as exactly one write when the answer to its commit is lost', async () => {
    let lost = 0;
    const ambiguous = newWriter(
      meddling(async (_connection, text, run) => {
        const result = await run();
        if (text.includes('COMMIT') && lost++ === 0)
          throw Object.assign(new Error('Connection lost'), { code: 'PROTOCOL_CONNECTION_LOST' });
        return result;
      }),
    );
    const moved = await insertZone(database.db);
    const [created, guarded] = await Promise.all([
      ambiguous.submit(zone('committed unheard')),
      ambiguous.submit(writing(patch('zone', moved.id, { generation: 1 }, { generation: plus(1) }))),
    ]);
    assert.deepEqual(created, { kind: 'written' });
    assert.deepEqual(guarded, { kind: 'stale' }, 'its author must read what became of it');
    assert.deepEqual(await zoneNames('committed unheard'), ['committed unheard']);
    const row = await database.db.selectFrom('zone').select('generation').where('id', '=', moved.id).executeTakeFirst();
    assert.equal(row?.generation, 2);
  });

  for (const [refuses, values] of [
    ['is disabled', { wanted_state: 'DISABLED' }],
    ['has less than is in use', { vcpus_cap: 1 }],
  ] as const) {
    it(`takes nothing from a host that ${refuses}, also beside one who gives more back`, async () => {
      const host = await insertHost(database.db, world, { vcpus_used: 4, memory_used_mib: 4, ...values });
      const outcomes = await Promise.all(
        [takeHost(host.id, -2, -2), takeHost(host.id, 1, 1)].map((take) => writer.submit(writing(take))),
      );
      assert.deepEqual(outcomes, [{ kind: 'written' }, { kind: 'full' }]);
      const row = await database.db
        .selectFrom('host')
        .select('vcpus_used')
        .where('id', '=', host.id)
        .executeTakeFirst();
      assert.equal(row?.vcpus_used, 2);
    });
  }

  it('never goes beyond a cap, however many take at once through two writers', async () => {
    const writers = [newWriter(), newWriter()];
    const host = world.hosts[0]!.id;
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, (_, n) => writers[n % 2]!.submit(writing(takeHost(host, 1, 1)))),
    );
    const kinds = outcomes.map((o) => o.kind);
    assert.deepEqual([kinds.filter((k) => k === 'written').length, kinds.filter((k) => k === 'full').length], [64, 36]);
    assert.equal(await used(), 64);
    assert.deepEqual(await writer.submit(writing(takeHost(host, -64, -64))), { kind: 'written' });
    assert.deepEqual(await writer.submit(writing(takeHost(host, -1, -1))), { kind: 'full' }, 'nothing to give back');
  });
});

describe('the writer and a database that goes away', () => {
  it('rejects within 5 seconds while it is away, and writes again when it is back', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'virtgraph-outage-'));
    let mariadb = await startMariaDb(folder);
    const pool = openPool(mariadb.url, { connections: 2, multipleStatements: true });
    const db = openDatabase(pool);
    try {
      await migrate(db);
      const writer = new Writer({
        tenancy: new Inventory(db),
        pool: pool.promise(),
        db,
        origin: randomUUID(),
        isElsewhere: () => false,
        onCommit: () => undefined,
      });
      assert.deepEqual(await writer.submit(zone('before')), { kind: 'written' });
      process.kill(mariadb.pid, 'SIGKILL');
      await mariadb.ended;

      const from = performance.now();
      const rejected = await Promise.allSettled(Array.from({ length: 40 }, (_, n) => writer.submit(zone(`away-${n}`))));
      assert.ok(performance.now() - from < 5_000);
      for (const result of rejected) {
        assert.equal(result.status, 'rejected');
        assert.ok(
          result.status === 'rejected' && isOutage(result.reason),
          String((result as { reason?: unknown }).reason),
        );
      }
      await writer.drained();

      mariadb = await startMariaDb(folder);
      assert.deepEqual(await writer.submit(zone('after')), { kind: 'written' });
      const names = await db.selectFrom('zone').select('name').orderBy('name').execute();
      assert.deepEqual(
        names.map((z) => z.name),
        ['after', 'before'],
      );
    } finally {
      await db.destroy();
      await mariadb.stop();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
