import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ControlApi } from '../../setup/graphql.ts';
import { auditCounters } from '../../src/loops/audit.ts';
import { type ControlProgram, type Estate, endOf, makeEstate, Product, registerTinyLinux } from '../support/product.ts';

interface Created {
  vm: { id: string };
  job: { id: string };
}

describe('two control planes on one database', { timeout: 180_000 }, () => {
  let product: Product;
  let planes: ControlProgram[];
  let apis: ControlApi[];
  let estate: Estate;
  let templateId: string;

  const create = (api: ControlApi, name: string) =>
    api.mutate<Created>(
      'createVm',
      { name, zoneId: estate.zoneId, offeringId: estate.offeringId, templateId, idempotencyKey: name },
      'vm { id } job { id }',
    );
  const metric = async (plane: { url: string }, name: string): Promise<number> => {
    const text = await (await fetch(`${plane.url}/metrics`)).text();
    return Number(new RegExp(`^virtgraph_${name} (\\S+)$`, 'm').exec(text)![1]);
  };

  before(async () => {
    product = await Product.open();
    planes = [await product.control(), await product.control()];
    apis = [await product.api(planes[0]!.url), await product.api(planes[1]!.url)];
    estate = await makeEstate(apis[0]!, '/srv/primary', { hosts: 8 });
    // Slow enough that a job is under way when its control plane is stopped.
    const faults = join(product.folder, 'faults.json');
    await writeFile(faults, JSON.stringify({ startVm: { delayMs: 300 } }));
    const fake = ['--hypervisor', 'fake', '--fake-config', faults];
    await product.hostd([planes[0]!.hostsUrl, planes[1]!.hostsUrl], estate.joinToken, [
      ...fake,
      '--name',
      'a',
      '--count',
      '2',
      '--data',
      join(product.folder, 'a'),
    ]);
    await product.hostd([planes[1]!.hostsUrl, planes[0]!.hostsUrl], estate.joinToken, [
      ...fake,
      '--name',
      'b',
      '--count',
      '2',
      '--data',
      join(product.folder, 'b'),
    ]);
    templateId = await registerTinyLinux(apis[0]!, estate.zoneId);
  });

  after(() => product.close());

  it('share host links', async () => {
    const links = await Promise.all(planes.map((plane) => metric(plane, 'host_links')));
    assert.deepEqual(links, [2, 2]);
  });

  it('share jobs: either takes any request, and commands reach hosts that are linked to the other', async () => {
    const created = await Promise.all(Array.from({ length: 24 }, (_, i) => create(apis[i % 2]!, `shared-${i}`)));
    const ends = await Promise.all(created.map(({ job }, i) => endOf(apis[(i + 1) % 2]!, job.id)));
    assert.deepEqual(new Set(ends.map((job) => job.state)), new Set(['SUCCEEDED']));
    const query = '{ hosts { nodes { vms(first: 0) { totalCount } } } }';
    const { hosts } = await apis[1]!.request<{ hosts: { nodes: { vms: { totalCount: number } }[] } }>(query);
    const counts = hosts.nodes.map((host) => host.vms.totalCount);
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      24,
    );
    // Each plane spreads by what it believes of the other's placements a moment ago.
    assert.ok(Math.min(...counts) >= 3, String(counts));
    assert.deepEqual(await auditCounters(product.database.db), []);
  });

  it('answer questions to hosts that are linked to the other', async () => {
    const { vms } = await apis[0]!.request<{ vms: { nodes: { id: string }[] } }>('{ vms(first: 24) { nodes { id } } }');
    for (const api of apis) {
      for (const { id } of vms.nodes.slice(0, 8)) {
        const query = 'query ($id: ID!) { vmScreenshot(id: $id) { mimeType } vm(id: $id) { serialLog } }';
        const { vmScreenshot, vm } = await api.request<{
          vmScreenshot: { mimeType: string };
          vm: { serialLog: string };
        }>(query, { id });
        assert.equal(vmScreenshot.mimeType, 'image/png');
        assert.match(vm.serialLog, /Linux/);
      }
    }
  });

  it('one that is stopped past its lease and continued can write nothing of the jobs that the other has finished', async () => {
    const [first, second] = planes as [ControlProgram, ControlProgram];
    const api = apis[1]!;
    // Jobs whose commands go to hosts of the first: their answers will find it stopped.
    const created = await Promise.all(Array.from({ length: 8 }, (_, i) => create(apis[0]!, `frozen-${i}`)));
    first.child.kill('SIGSTOP');
    const ends = await Promise.all(created.map(({ job }) => endOf(api, job.id)));
    assert.deepEqual(new Set(ends.map((job) => job.state)), new Set(['SUCCEEDED']));
    const before = await rows();

    first.child.kill('SIGCONT');
    // Whatever it had in hand is through when it answers and holds its lease again.
    const { job } = await create(apis[0]!, 'after the freeze');
    assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED');
    assert.deepEqual(await rows(), before, 'the finished jobs are as they were');
    assert.deepEqual(await auditCounters(product.database.db), []);
    assert.equal((await metric(second, 'host_links')) + (await metric(first, 'host_links')), 4);

    async function rows() {
      const names = created.map((_, i) => `frozen-${i}`);
      const { db } = product.database;
      const vms = await db.selectFrom('vm').selectAll().where('name', 'in', names).orderBy('id').execute();
      const ids = vms.map((vm) => vm.id);
      const jobs = await db
        .selectFrom('job')
        .selectAll()
        .where('target_kind', '=', 'vm')
        .where('target_id', 'in', ids)
        .orderBy('id')
        .execute();
      const steps = await db
        .selectFrom('job_step')
        .selectAll()
        .where(
          'job_id',
          'in',
          jobs.map((j) => j.id),
        )
        .orderBy('job_id')
        .orderBy('seq')
        .execute();
      return { vms, jobs, steps };
    }
  });
});
