import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ControlApi } from '../../setup/graphql.ts';
import { type MariaDb, startMariaDb } from '../../setup/mariadb.ts';
import { type ControlProgram, type Estate, endOf, makeEstate, Product, registerTinyLinux } from '../support/product.ts';

describe('a database that goes away and comes back', { timeout: 120_000 }, () => {
  let folder: string;
  let server: MariaDb;
  let product: Product;
  let control: ControlProgram;
  let api: ControlApi;
  let estate: Estate;
  let templateId: string;

  const create = (name: string) =>
    api.mutate<{ vm: { id: string }; job: { id: string } }>(
      'createVm',
      { name, zoneId: estate.zoneId, offeringId: estate.offeringId, templateId, idempotencyKey: name },
      'vm { id } job { id }',
    );

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vg-db-'));
    server = await startMariaDb(folder);
    product = await Product.open(server.url);
    control = await product.control();
    api = await product.api(control.url);
    estate = await makeEstate(api, '/srv/primary');
    await product.hostd([control.hostsUrl], estate.joinToken, ['--hypervisor', 'fake']);
    templateId = await registerTinyLinux(api, estate.zoneId);
  });

  after(async () => {
    await product.close();
    await server.stop();
    await rm(folder, { recursive: true });
  });

  it('gives a clear error within 5 s while it is away, and no host is given up', async () => {
    process.kill(server.pid, 'SIGKILL');
    await server.ended;
    const from = performance.now();
    await assert.rejects(
      create('while down'),
      (error: { codes?: string[] }) => error.codes?.includes('UNAVAILABLE') === true,
    );
    assert.ok(performance.now() - from < 5_000);
    const ready = await fetch(`${control.url}/readyz`);
    assert.equal(ready.status, 503);
    assert.equal((await fetch(`${control.url}/healthz`)).status, 200, 'the process itself is well');
  });

  it('gives a clear error within 5 s while it hangs', async () => {
    server = await startMariaDb(folder);
    assert.equal((await endOf(api, (await create('between')).job.id)).state, 'SUCCEEDED');
    process.kill(server.pid, 'SIGSTOP');
    await untilStopped(server.pid);
    try {
      const asked = [create('while it hangs'), api.request('{ vms { nodes { name } } }')];
      const from = performance.now();
      const isUnavailable = (error: { codes?: string[] }): boolean => error.codes?.includes('UNAVAILABLE') === true;
      // Awaited together: one that was refused while the other is awaited would be nobody's.
      await Promise.all(asked.map((answer) => assert.rejects(answer, isUnavailable)));
      assert.ok(performance.now() - from < 5_000, `${performance.now() - from} ms`);
    } finally {
      process.kill(server.pid, 'SIGCONT');
    }
    process.kill(server.pid, 'SIGKILL');
    await server.ended;
  });

  it('works again when it is back, without a restart', async () => {
    server = await startMariaDb(folder);
    const { job } = await create('after');
    assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED');
    const { hosts } = await api.request<{ hosts: { nodes: { linkState: string }[] } }>(
      '{ hosts { nodes { linkState } } }',
    );
    assert.deepEqual(
      hosts.nodes.map((host) => host.linkState),
      ['UP'],
    );
    assert.equal((await fetch(`${control.url}/readyz`)).status, 200);
  });
});

/** A signal stops the threads of a process one after the other; until then some still answer. */
async function untilStopped(pid: number): Promise<void> {
  const tasks = (await readdir(`/proc/${pid}/task`)).map((task) => `/proc/${pid}/task/${task}/stat`);
  for (const task of tasks) while (!/\) T/.test(await readFile(task, 'utf8')));
}
