import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { encodeId } from '../../src/domain/ids.ts';
import { UsageBoard } from '../../src/hosts/usage.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

describe('usage that hosts tell', () => {
  let database: TestDatabase;
  let world: World;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2 });
  });
  after(() => database.close());

  it('is written although another host tells what no column holds', async () => {
    const foreign: [hostId: number, vmIds: string[]][] = [];
    const board = new UsageBoard(database.db, async (...told) => foreign.push(told));
    const told = [512, -1];
    const counters = [7, 1e300];
    const vms = [];
    for (const [n, host] of world.hosts.entries()) {
      const vm = await insertVm(database.db, world, { host_id: host.id, state: 'RUNNING' });
      vms.push(vm);
      const value = counters[n]!;
      board.report(host.id, { cpuLoad: 0.5, memoryUsedMib: told[n]! }, [
        {
          vmId: encodeId('vm', vm.uid),
          cpuNs: value,
          memoryBytes: value,
          diskReadBytes: value,
          diskWriteBytes: value,
          networkReceiveBytes: value,
          networkTransmitBytes: null,
        },
      ]);
    }
    await board.flush();
    const hosts = await database.db.selectFrom('host_usage').select('memory_used_mib').orderBy('host_id').execute();
    assert.deepEqual(
      hosts.map((row) => row.memory_used_mib),
      [512, 0],
    );
    const rows = await database.db
      .selectFrom('vm_usage')
      .select(['vm_id', 'cpu_ns', 'network_transmit_bytes'])
      .orderBy('vm_id')
      .execute();
    assert.deepEqual(
      rows.map((row) => [row.vm_id, row.cpu_ns, row.network_transmit_bytes]),
      [
        [vms[0]!.id, 7, null],
        [vms[1]!.id, Number.MAX_SAFE_INTEGER, null],
      ],
    );
  });

  it('of a VM that is placed elsewhere is not written but told of: a host speaks for its own alone', async () => {
    const foreign: [hostId: number, vmIds: string[]][] = [];
    const board = new UsageBoard(database.db, async (...told) => foreign.push(told));
    const [mine, other] = world.hosts;
    const vm = await insertVm(database.db, world, { host_id: other!.id, state: 'RUNNING' });
    const counters = { cpuNs: 1, memoryBytes: 1, diskReadBytes: 1, diskWriteBytes: 1 };
    const vmId = encodeId('vm', vm.uid);
    const tell = (host: Placed, cpuNs: number): void =>
      board.report(host.id, { cpuLoad: 0, memoryUsedMib: 0 }, [
        { ...counters, cpuNs, vmId, networkReceiveBytes: null, networkTransmitBytes: null },
      ]);
    const written = () => database.db.selectFrom('vm_usage').select('cpu_ns').where('vm_id', '=', vm.id).execute();
    tell(mine!, 1);
    await board.flush();
    assert.deepEqual(await written(), []);
    assert.deepEqual(foreign, [[mine!.id, [vmId]]]);

    tell(other!, 2);
    tell(mine!, 3);
    await board.flush();
    assert.deepEqual(await written(), [{ cpu_ns: 2 }], 'nor does it stand in the way of what the host itself tells');
  });

  it('of a VM that has just left its host is not written, and is no fault of the host', async () => {
    const foreign: unknown[] = [];
    const board = new UsageBoard(database.db, async (...told) => foreign.push(told));
    const [mine, other] = world.hosts;
    const vm = await insertVm(database.db, world, { host_id: other!.id, last_host_id: mine!.id, state: 'RUNNING' });
    board.report(mine!.id, { cpuLoad: 0, memoryUsedMib: 0 }, [
      {
        ...{ cpuNs: 1, memoryBytes: 1, diskReadBytes: 1, diskWriteBytes: 1 },
        ...{ vmId: encodeId('vm', vm.uid), networkReceiveBytes: null, networkTransmitBytes: null },
      },
    ]);
    await board.flush();
    assert.deepEqual(await database.db.selectFrom('vm_usage').select('vm_id').where('vm_id', '=', vm.id).execute(), []);
    assert.deepEqual(foreign, []);
  });
});
