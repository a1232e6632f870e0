import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ControlApi } from '../../setup/graphql.ts';
import { auditCounters } from '../../src/loops/audit.ts';
import {
  type ControlProgram,
  type Estate,
  endOf,
  makeEstate,
  Product,
  type Program,
  registerTinyLinux,
} from '../support/product.ts';

const KILLS = 10;

interface Created {
  vm: { id: string };
  job: { id: string };
}

describe('on real QEMU', { timeout: 240_000 }, () => {
  let product: Product;
  let control: ControlProgram;
  let hostd: Program;
  let api: ControlApi;
  let estate: Estate;
  let templateId: string;
  let ports: { port: number; hostsPort: number };

  const create = (name: string): Promise<Created> => {
    const { zoneId, offeringId } = estate;
    const input = { name, zoneId, offeringId, templateId, idempotencyKey: name };
    return api.mutate<Created>('createVm', input, 'vm { id } job { id }');
  };

  /** Repeats a request with its key until a control plane answers it. */
  async function createThroughKills(name: string): Promise<Created> {
    for (;;) {
      try {
        return await create(name);
      } catch (error) {
        // Refused connections and lost answers are what this test makes; anything that the server says is a failure.
        if ((error as { codes?: string[] }).codes?.some((code) => code !== 'UNAVAILABLE')) throw error;
        await control.ready;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  before(async () => {
    product = await (await Product.open()).withTinyLinux();
    control = await product.control();
    ports = { port: Number(new URL(control.url).port), hostsPort: Number(new URL(control.hostsUrl).port) };
    api = await product.api(control.url);
    estate = await makeEstate(api, join(product.folder, 'primary'));
    hostd = await product.hostd([control.hostsUrl], estate.joinToken);
    templateId = await registerTinyLinux(api, estate.zoneId);
  });

  after(() => product.close());

  it('a host daemon that is killed leaves its VM alone and finds it again', async () => {
    const { vm, job } = await create('survivor');
    assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED');
    const before = await product.qemus();
    assert.deepEqual(
      before.map((q) => q.vmId),
      [vm.id],
    );

    await hostd.end('SIGKILL');
    const killedAt = performance.now();
    hostd = await product.hostd([control.hostsUrl], estate.joinToken);
    const adoptedMs = performance.now() - killedAt;

    assert.deepEqual(await product.qemus(), before, 'the same process');
    assert.ok(adoptedMs < 10_000, `adopted within 10 s, not ${Math.round(adoptedMs)} ms`);
    const paused = await api.mutate<Created>('pauseVm', { id: vm.id }, 'vm { id } job { id }');
    assert.equal((await endOf(api, paused.job.id)).state, 'SUCCEEDED', 'the adopted VM obeys');
    const resumed = await api.mutate<Created>('resumeVm', { id: vm.id }, 'vm { id } job { id }');
    assert.equal((await endOf(api, resumed.job.id)).state, 'SUCCEEDED');
  });

  it('a QEMU that is killed is seen within 5 s, and its place is free', async () => {
    const [qemu] = await product.qemus();
    const query = 'subscription ($id: ID!) { vmChanged(id: $id) { state stateReason host { id } observed { state } } }';
    const changes = api.subscribe<{
      vmChanged: { state: string; stateReason: string; host: null; observed: { state: string } };
    }>(query, { id: qemu!.vmId });
    assert.equal((await changes.next()).value!.vmChanged.state, 'RUNNING');
    process.kill(qemu!.pid, 'SIGKILL');
    const killedAt = performance.now();
    for await (const { vmChanged } of changes) {
      if (vmChanged.state !== 'STOPPED') continue;
      assert.equal(vmChanged.observed.state, 'CRASHED');
      assert.equal(vmChanged.host, null);
      assert.ok(vmChanged.stateReason);
      break;
    }
    const seenMs = performance.now() - killedAt;
    assert.ok(seenMs < 5_000, `seen within 5 s, not ${Math.round(seenMs)} ms`);
    assert.deepEqual(await auditCounters(product.database.db), []);
  });

  it(`a control plane that is killed ${KILLS} times during creates loses none and leaves nothing over`, async () => {
    const creates: Promise<Created>[] = [];
    for (let i = 0; i < KILLS; i++) {
      creates.push(createThroughKills(`killed-${i}`));
      // Kill while it is somewhere between accepting and the end: as soon as the host has begun a new command.
      await once(() =>
        product.database.db.selectFrom('job_step').select('job_id').where('state', '=', 'OPEN').limit(1).execute(),
      );
      await control.end('SIGKILL');
      control = await product.control(ports);
    }
    const accepted = await Promise.all(creates);
    const ends = await Promise.all(accepted.map(({ job }) => endOf(api, job.id)));
    assert.deepEqual(
      ends.map((job) => job.state),
      ends.map(() => 'SUCCEEDED'),
      JSON.stringify(ends.map((job) => job.error)),
    );
    assert.equal(new Set(accepted.map(({ vm }) => vm.id)).size, KILLS);
    const running = (await product.qemus()).map((q) => q.vmId).sort();
    assert.deepEqual(running, accepted.map(({ vm }) => vm.id).sort(), 'each runs, and once');
    assert.deepEqual(await auditCounters(product.database.db), []);
    const open = await product.database.db.selectFrom('job_step').select('name').where('state', '=', 'OPEN').execute();
    assert.deepEqual(open, []);

    const destroyed = await Promise.all(
      accepted.map(({ vm }) => api.mutate<Created>('destroyVm', { id: vm.id }, 'vm { id } job { id }')),
    );
    await Promise.all(destroyed.map(({ job }) => endOf(api, job.id)));
    assert.deepEqual(await product.qemus(), []);
  });
});

/** The first answer that is not empty. */
async function once<T>(look: () => Promise<T[]>): Promise<T[]> {
  for (;;) {
    const found = await look();
    if (found.length > 0) return found;
  }
}
