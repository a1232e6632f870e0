import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { ADMIN, assertClean, follow, jobEnded, openCore } from '../support/core.ts';
import { type Bench, createInput, openBench, vmRow } from './cases.ts';

const REPEATS = 50;

describe('one idempotency key', () => {
  let bench: Bench;
  let other: Core;
  let unfollow: () => Promise<void>;
  before(async () => {
    bench = await openBench();
    other = await openCore(bench.database.url);
    unfollow = follow(bench.core, other);
  });
  after(async () => {
    await unfollow();
    await other.close();
    await bench.close();
  });

  /** The same mutation by two processes at once, then by one that has only begun. */
  async function repeated(mutation: 'createVm' | 'startVm' | 'createZone', input: Record<string, unknown>) {
    const cores = [bench.core, other];
    const payloads = await Promise.all(
      Array.from({ length: REPEATS }, (_, n) => cores[n % 2]!.ops[mutation](ADMIN, input)),
    );
    const late = await openCore(bench.database.url);
    payloads.push(await late.ops[mutation](ADMIN, input));
    await late.close();
    assert.deepEqual(payloads[0]!.errors, []);
    for (const payload of payloads) assert.deepEqual(payload, payloads[0]);
    return payloads[0]!;
  }

  async function reused(mutation: 'createVm' | 'startVm' | 'createZone', input: Record<string, unknown>) {
    const payload = await other.ops[mutation](ADMIN, input);
    assert.deepEqual([payload.id, payload.jobId], [null, null]);
    assert.deepEqual(
      [payload.errors[0]?.code, payload.errors[0]?.path],
      ['IDEMPOTENCY_KEY_REUSED', ['idempotencyKey']],
    );
  }

  it('creates one VM', async () => {
    const { core } = bench;
    const input = createInput(bench, { idempotencyKey: 'create once' });
    const payload = await repeated('createVm', input);
    assert.equal((await jobEnded(core, payload.jobId!)).state, 'SUCCEEDED');
    const vms = await core.db.selectFrom('vm').select('id').where('name', '=', input.name).execute();
    assert.deepEqual(vms, [{ id: payload.id }]);
    await repeated('createVm', input);
    await repeated('createVm', { ...input, description: null });
    await reused('createVm', { ...input, name: `${input.name}, another` });
    await assertClean(core);
  });

  it('starts a VM once', async () => {
    const { core } = bench;
    const created = await core.ops.createVm(ADMIN, createInput(bench, { start: false }));
    await jobEnded(core, created.jobId!);
    const id = encodeId('vm', (await vmRow(core, created.id!)).uid);
    const payload = await repeated('startVm', { id, idempotencyKey: 'start once' });
    assert.equal((await jobEnded(core, payload.jobId!)).state, 'SUCCEEDED');
    const jobs = await core.db.selectFrom('job').select('kind').where('target_id', '=', created.id!).execute();
    assert.deepEqual(jobs.map((j) => j.kind).sort(), ['CREATE_VM', 'START_VM']);
    // The wish is fulfilled by now; the answer is still that of the first time.
    await repeated('startVm', { id, idempotencyKey: 'start once' });
    await reused('startVm', { id, hostId: encodeId('host', bench.world.hosts[0]!.uid), idempotencyKey: 'start once' });
    await bench.host.settled();
    await assertClean(core);
  });

  it('creates one zone, although its name is taken by then', async () => {
    const { core } = bench;
    const input = { name: 'one zone', idempotencyKey: 'zone once' };
    const payload = await repeated('createZone', input);
    const zones = await core.db.selectFrom('zone').select('id').where('name', '=', 'one zone').execute();
    assert.deepEqual(zones, [{ id: payload.id }]);
    await reused('createZone', { ...input, name: 'another zone' });
    const taken = await core.ops.createZone(ADMIN, { name: 'one zone', idempotencyKey: 'another key' });
    assert.deepEqual([taken.errors[0]?.code, taken.errors[0]?.path], ['ALREADY_EXISTS', ['name']]);
  });

  it('belongs to one mutation: another may use the same', async () => {
    const { core } = bench;
    const key = { idempotencyKey: 'shared by two' };
    const zone = await core.ops.createZone(ADMIN, { name: 'shares a key', ...key });
    const offering = await core.ops.createOffering(ADMIN, { name: 'shares a key', vcpus: 1, memoryMib: 64, ...key });
    assert.deepEqual([zone.errors, offering.errors], [[], []]);
  });
});
