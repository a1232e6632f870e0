import assert from 'node:assert/strict';
import { randomInt, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Feed, headSeq } from '../../src/db/feed.ts';
import { newUid } from '../../src/db/ids.ts';
import { Inventory } from '../../src/db/inventory.ts';
import { openDatabase, openPool } from '../../src/db/pool.ts';
import { type Change, emptyTransition, insert } from '../../src/db/transition.ts';
import { Writer } from '../../src/db/writer.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

const WRITERS = 8;
const WRITES = 60;

describe('the change feed', () => {
  let database: TestDatabase;
  const pools: ReturnType<typeof openPool>[] = [];
  before(async () => {
    database = await freshDatabase();
  });
  after(async () => {
    await Promise.all(pools.map((pool) => pool.promise().end()));
    await database.close();
  });

  function newWriter(origin: string, onCommit: (ids: number[]) => void, pool = database.pool): Writer {
    return new Writer({
      tenancy: new Inventory(database.db),
      pool: pool.promise(),
      db: database.db,
      origin,
      maxBatch: randomInt(1, 6),
      isElsewhere: () => false,
      onCommit: (written) => onCommit(written.flatMap((t) => t.changes.map((c) => c.id))),
    });
  }
  const zone = (id: number, more: Change[] = []) => ({
    ...emptyTransition(),
    writes: [insert('zone', { id, uid: newUid(), name: `zone ${id}` })],
    changes: [{ kind: 'zone' as const, id }, ...more],
    events: [
      {
        type: 'zone.created',
        subject: { kind: 'zone' as const, id },
        jobId: null,
        actor: 'test',
        reason: null,
        changes: [],
      },
    ],
  });

  it('numbers changes and events densely, in the order of commits, under eight writers of two pools', async () => {
    pools.push(openPool(database.url, { connections: 4, multipleStatements: true }));
    pools.push(openPool(database.url, { connections: 4, multipleStatements: true }));
    const from = await headSeq(database.db);
    const committedBy = new Map<string, number[]>();
    const writers = Array.from({ length: WRITERS }, (_, w) => {
      const origin = randomUUID();
      const order: number[] = [];
      committedBy.set(origin, order);
      return newWriter(origin, (ids) => order.push(...ids), pools[w % 2]);
    });

    // A reader that forgets everything but its cursor, again and again, while they write.
    const seen: number[] = [];
    let cursor = from;
    let writing = true;
    const reading = (async () => {
      while (writing || seen.length < WRITERS * WRITES) {
        const rows = await database.db
          .selectFrom('change')
          .select(['seq', 'resource_id'])
          .where('seq', '>', cursor)
          .orderBy('seq')
          .limit(randomInt(1, 50))
          .execute();
        for (const row of rows) {
          assert.ok(row.seq > cursor);
          cursor = row.seq;
          seen.push(row.resource_id);
        }
      }
    })();
    await Promise.all(
      writers.flatMap((writer, w) =>
        Array.from({ length: WRITES }, (_, n) => writer.submit(zone(2 ** 30 + w * WRITES + n))),
      ),
    );
    writing = false;
    await reading;

    const changes = await database.db.selectFrom('change').selectAll().where('seq', '>', from).orderBy('seq').execute();
    const events = await database.db.selectFrom('event').select('seq').where('seq', '>', from).execute();
    const head = await headSeq(database.db);
    assert.equal(changes.length, WRITERS * WRITES);
    const all = [...changes, ...events].map((row) => row.seq).sort((a, b) => a - b);
    assert.deepEqual(
      all,
      Array.from({ length: head - from }, (_, i) => from + 1 + i),
      'no gap, nothing twice',
    );
    assert.deepEqual(
      seen,
      changes.map((c) => c.resource_id),
      'the reader has seen each once, in order',
    );
    for (const [origin, order] of committedBy)
      assert.deepEqual(
        changes.filter((c) => c.origin === origin).map((c) => c.resource_id),
        order,
      );
  });

  it('tells a process its own changes at once and those of others by reading, each once', async () => {
    const [own, other] = [randomUUID(), randomUUID()];
    const feed = new Feed(database.db, own);
    await feed.start();
    const told: [number, string][] = [];
    const stop = feed.listen((changes, from) => told.push(...changes.map((c): [number, string] => [c.id, from])));
    const mine = newWriter(own, (ids) =>
      feed.publish(
        ids.map((id) => ({ kind: 'zone', id })),
        'self',
      ),
    );
    const theirs = newWriter(other, () => undefined);
    await mine.submit(zone(2 ** 31));
    await theirs.submit(zone(2 ** 31 + 1));
    assert.deepEqual(told, [[2 ** 31, 'self']]);
    await feed.tail();
    assert.deepEqual(told, [
      [2 ** 31, 'self'],
      [2 ** 31 + 1, 'others'],
    ]);
    await feed.tail();
    assert.equal(told.length, 2);
    stop();
    await theirs.submit(zone(2 ** 31 + 2));
    await feed.tail();
    assert.equal(told.length, 2, 'who has stopped listening hears nothing');
  });

  it('names a resource once in a batch, however often it changed', async () => {
    const from = await headSeq(database.db);
    const writer = newWriter(randomUUID(), () => undefined);
    const twice = { kind: 'zone' as const, id: 2 ** 32 };
    await writer.submit(zone(2 ** 32, [twice, twice]));
    const rows = await database.db.selectFrom('change').select('resource_id').where('seq', '>', from).execute();
    assert.deepEqual(rows, [{ resource_id: 2 ** 32 }]);
  });

  it('tells another process of commands for hosts that are not linked here', async () => {
    const from = await headSeq(database.db);
    const writer = new Writer({
      tenancy: new Inventory(database.db),
      pool: database.pool.promise(),
      db: database.db,
      origin: randomUUID(),
      isElsewhere: (hostId) => hostId === 7,
      onCommit: () => undefined,
    });
    const command = (hostId: number) => ({
      jobId: 1,
      seq: 1,
      hostId,
      command: 'X',
      vmEpoch: 0,
      timeoutMs: 1,
      payload: '{}',
    });
    await writer.submit({ ...zone(2 ** 33), commands: [command(7), command(8)] });
    const rows = await database.db
      .selectFrom('change')
      .select(['kind', 'resource_id'])
      .where('seq', '>', from)
      .execute();
    assert.deepEqual(rows.map((r) => `${r.kind} ${r.resource_id}`).sort(), ['command 7', `zone ${2 ** 33}`]);
  });

  it('starts at what is committed by then', async () => {
    const feed = new Feed(openDatabase(database.pool), randomUUID());
    const told: Change[] = [];
    feed.listen((changes) => told.push(...changes));
    await feed.start();
    await feed.tail();
    assert.deepEqual(told, []);
  });
});
