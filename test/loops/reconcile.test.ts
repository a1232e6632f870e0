import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { vmRow } from '../jobs/cases.ts';
import { assertClean, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

describe('the sweep over VMs that should run', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  /** A VM that holds its place, and that its host saw end in the life of this epoch. */
  async function seenToEnd(observedEpoch: number): Promise<Placed> {
    const { id: host_id } = world.hosts[0]!;
    const seen = { observed_state: 'CRASHED', observed_host_id: host_id, observed_epoch: observedEpoch } as const;
    const vm = await insertVm(database.db, world, { state: 'RUNNING', host_id, epoch: 2, ...seen });
    await database.db.insertInto('reservation').values({ vm_id: vm.id, host_id, vcpus: 1, memory_mib: 128 }).execute();
    return vm;
  }

  it('settles one that has ended, also behind many of which an earlier life is told', async () => {
    const earlier: Placed[] = [];
    for (let n = 0; n < 500; n++) earlier.push(await seenToEnd(1));
    const ended = await seenToEnd(2);
    await database.db
      .updateTable('host')
      .set({ vcpus_used: 501, memory_used_mib: 501 * 128 })
      .execute();
    assert.equal(await core.reconciler.settle(null), 1);
    assert.equal((await vmRow(core, ended.id)).state, 'STOPPED');
    assert.equal((await vmRow(core, earlier[0]!.id)).state, 'RUNNING');
    await assertClean(core);
  });
});
