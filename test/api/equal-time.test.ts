import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Inventory } from '../../src/db/inventory.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';
import { type Ids, QUERIES } from '../repo/authorization-matrix.ts';
import { callOf } from '../repo/graph-probe.ts';
import { belongings } from '../support/belongings.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import { EXECUTORS, testContext } from '../support/graph.ts';
import { insertAccount, insertActor, insertDomain, ROLE } from '../support/tenants.ts';
import { insertWorld } from '../support/world.ts';

/** Of everybody: there is nothing to hide. */
const CATALOGUE: ResourceKind[] = ['zone', 'offering', 'role'];
const KINDS = Object.entries(QUERIES).flatMap(([name, { ids }]) => {
  const kind = ids['id']?.kind;
  return kind && !CATALOGUE.includes(kind) ? [{ name, kind }] : [];
});
/** As large as a row can be: what is read of somebody else's would show. */
const LARGE = 'x'.repeat(4_096);
const AT_ONCE = 40;
const ROUNDS = 8;

describe('a foreign id takes as long as one of nothing', () => {
  let database: TestDatabase;
  let inventory: Inventory;
  let acmes: Ids;
  const actors = {} as Record<'stranger' | 'domainAdmin', UserActor>;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    const world = await insertWorld(db);
    const domain = await insertDomain(db);
    acmes = await belongings(database, world, domain, await insertAccount(db, domain));
    await db.updateTable('vm').set({ description: LARGE }).execute();
    const other = await insertAccount(db, await insertDomain(db));
    actors.stranger = await insertActor(db, other, ROLE.user);
    actors.domainAdmin = await insertActor(db, other, ROLE.domainAdmin);
    inventory = new Inventory(db);
    await inventory.load();
  });
  after(() => database.close());

  const unknown = (kind: ResourceKind): string => encodeId(kind, Buffer.alloc(16, 7));

  for (const { name, kind } of KINDS)
    for (const who of ['stranger', 'domainAdmin'] as const) {
      it(`asked by a ${who} for a ${kind}: the same statements`, async () => {
        const { db, statements } = recordStatements(database.pool);
        const context = () => testContext({ db, actor: actors[who], inventory });
        const asked = async (id: string) => {
          statements.length = 0;
          const answer = await EXECUTORS['graphql-js'](context(), callOf('query', name).query, { id });
          assert.deepEqual([answer.errors, { ...answer.data }], [undefined, { [name]: null }]);
          return [...statements];
        };
        const ofNothing = await asked(unknown(kind));
        assert.equal(ofNothing.length, 1);
        assert.deepEqual(await asked(acmes[kind]), ofNothing);
      });

      it(`asked by a ${who} for a ${kind}: the same time`, async () => {
        const { db } = database;
        const { query } = callOf('query', name);
        const times = { foreign: [] as number[], nothing: [] as number[], statement: [] as number[] };
        const timed = async (into: number[], work: () => Promise<unknown>): Promise<void> => {
          const from = process.hrtime.bigint();
          await work();
          into.push(Number(process.hrtime.bigint() - from));
        };
        const ask = (id: string) =>
          EXECUTORS['graphql-js'](testContext({ db, actor: actors[who], inventory }), query, { id });
        const one = db.selectFrom('zone').select('id').where('uid', '=', Buffer.alloc(16, 7));
        let difference = Infinity;
        let bound = 0;
        // What comes of a busy machine is gone with more of it; what one of them does beside the other stays.
        for (let round = 0; round < ROUNDS && difference >= bound; round++) {
          for (let i = 0; i < AT_ONCE; i++) {
            const both = [
              () => timed(times.foreign, () => ask(acmes[kind])),
              () => timed(times.nothing, () => ask(unknown(kind))),
            ];
            // In turn first and second, and between them what another look-up would cost.
            for (const work of i % 2 === 0 ? both : both.reverse()) await work();
            await timed(times.statement, () => one.execute());
          }
          difference = Math.abs(median(times.foreign) - median(times.nothing));
          bound = median(times.statement) / 2;
        }
        assert.ok(difference < bound, `${difference} ns apart; half a look-up takes ${bound} ns`);
      });
    }
});

function median(times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[times.length >> 1]!;
}
