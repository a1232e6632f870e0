import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ControlApi } from '../../setup/graphql.ts';
import { auditCounters } from '../../src/loops/audit.ts';
import { type Estate, endOf, followJob, makeEstate, Product, registerTinyLinux } from '../support/product.ts';

/** The states that a VM is seen in, in order, without repeats; and a way to await one. */
class States {
  readonly seen: string[] = [];
  readonly #waiting: { state: string; resolve: () => void }[] = [];

  push(state: string): void {
    if (this.seen.at(-1) !== state) this.seen.push(state);
    for (const waiter of this.#waiting.filter((w) => w.state === state)) waiter.resolve();
  }

  reach(state: string): Promise<void> {
    if (this.seen.at(-1) === state) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ state, resolve }));
  }
}

describe('the life of a VM on real QEMU', { timeout: 180_000 }, () => {
  let product: Product;
  let api: ControlApi;
  let estate: Estate;
  let vmId: string;
  let states: States;
  const stopWatching = new AbortController();
  let watching: Promise<void>;
  let newest: Promise<void>;
  const pushed: string[] = [];

  /** A mutation on the VM; resolves with everything that was pushed of its job. */
  const act = async (name: string, input: object = {}) => {
    const { job } = await api.mutate<{ job: { id: string } }>(name, { id: vmId, ...input }, 'job { id }');
    return followJob(api, job.id);
  };
  const succeeded = (seen: Awaited<ReturnType<typeof act>>): void => {
    assert.equal(seen.at(-1)!.state, 'SUCCEEDED', JSON.stringify(seen.at(-1)));
    const percents = seen.map((job) => job.progressPercent);
    assert.deepEqual(
      percents,
      [...percents].sort((a, b) => a - b),
      'the progress never goes back',
    );
  };

  before(async () => {
    product = await (await Product.open()).withTinyLinux();
    const control = await product.control();
    api = await product.api(control.url);
    estate = await makeEstate(api, join(product.folder, 'primary'));
    await product.hostd([control.hostsUrl], estate.joinToken);
  });

  after(async () => {
    stopWatching.abort();
    await watching;
    await product.close();
  });

  it('creates it from a template, running', async () => {
    const templateId = await registerTinyLinux(api, estate.zoneId);
    const { zoneId, offeringId } = estate;
    const { vm, job } = await api.mutate<{ vm: { id: string }; job: { id: string } }>(
      'createVm',
      { name: 'life 🚀', zoneId, offeringId, templateId },
      'vm { id } job { id }',
    );
    vmId = vm.id;
    states = new States();
    watching = (async () => {
      // `vmChanged` gives the newest state at a bounded rate; the event log gives each.
      const query =
        'subscription ($id: ID!) { eventAppended(afterSeq: "0", subjectId: $id) { changes { field after } } }';
      const events = api.subscribe<{ eventAppended: { changes: { field: string; after: string }[] } }>(
        query,
        { id: vmId },
        stopWatching.signal,
      );
      for await (const { eventAppended } of events)
        for (const { field, after } of eventAppended.changes) if (field === 'state') states.push(after);
    })();
    newest = (async () => {
      const query = 'subscription ($id: ID!) { vmChanged(id: $id) { state } }';
      for await (const { vmChanged } of api.subscribe<{ vmChanged: { state: string } }>(
        query,
        { id: vmId },
        stopWatching.signal,
      )) {
        pushed.push(vmChanged.state);
        if (vmChanged.state === 'EXPUNGED') return;
      }
    })();
    succeeded(await followJob(api, job.id));
    await states.reach('RUNNING');
  });

  it('shows the first lines of its serial console', async () => {
    const query = 'subscription ($vmId: ID!) { vmSerialOutput(vmId: $vmId, lastBytes: 65536) { text } }';
    let text = '';
    for await (const { vmSerialOutput } of api.subscribe<{ vmSerialOutput: { text: string } }>(query, { vmId })) {
      text += vmSerialOutput.text;
      if (text.includes('ready')) break;
    }
    assert.match(text, /Virtgraph/);
    const { vm } = await api.request<{ vm: { serialLog: string } }>('query ($id: ID!) { vm(id: $id) { serialLog } }', {
      id: vmId,
    });
    assert.match(vm.serialLog, /ready/);
  });

  it('shows its screen as a PNG', async () => {
    const { vmScreenshot } = await api.request<{ vmScreenshot: { mimeType: string; base64: string } }>(
      'query ($id: ID!) { vmScreenshot(id: $id) { mimeType base64 } }',
      { id: vmId },
    );
    assert.equal(vmScreenshot.mimeType, 'image/png');
    assert.deepEqual(Buffer.from(vmScreenshot.base64, 'base64').subarray(0, 4), Buffer.from([0x89, 0x50, 0x4e, 0x47]));
  });

  it('stops gracefully, by the guest itself', async () => {
    succeeded(await act('stopVm', { timeoutMs: 60_000 }));
    const { vm } = await api.request<{ vm: { host: null; observed: { state: string } } }>(
      'query ($id: ID!) { vm(id: $id) { host { id } observed { state } } }',
      { id: vmId },
    );
    assert.deepEqual(vm, { host: null, observed: { state: 'STOPPED' } });
  });

  it('starts again, is destroyed, recovered and expunged', async () => {
    succeeded(await act('startVm'));
    succeeded(await act('destroyVm'));
    succeeded(await act('recoverVm'));
    succeeded(await act('destroyVm'));
    succeeded(await act('expungeVm'));
    await states.reach('EXPUNGED');
  });

  it('pushed every state in its order', () => {
    assert.deepEqual(states.seen, [
      'CREATING',
      'RUNNING',
      'STOPPING',
      'STOPPED',
      'STARTING',
      'RUNNING',
      'STOPPING',
      'DESTROYED',
      'STOPPED',
      'DESTROYED',
      'EXPUNGING',
      'EXPUNGED',
    ]);
  });

  it('pushed its newest state to whoever watches the VM, never out of order', async () => {
    await newest;
    let at = -1;
    for (const state of pushed) {
      const next = states.seen.indexOf(state, Math.max(at, 0));
      assert.ok(next >= 0, `${pushed.join()} is not in the order of ${states.seen.join()}`);
      at = next;
    }
  });

  it('leaves no file, no process and no room taken', async () => {
    assert.deepEqual(await readdir(join(product.folder, 'primary', 'volumes')), []);
    assert.deepEqual(await auditCounters(product.database.db), []);
    const { vms } = await api.request<{ vms: { totalCount: number } }>('{ vms { totalCount } }');
    assert.equal(vms.totalCount, 0);
  });

  it('refuses a template file that is not what it says, and leaves the reason', async () => {
    const { template, job } = await api.mutate<{ template: { id: string }; job: { id: string } }>(
      'registerTemplate',
      { zoneId: estate.zoneId, name: 'liar', fileName: 'tiny-linux.qcow2', format: 'RAW' },
      'template { id } job { id }',
    );
    const end = await endOf(api, job.id);
    assert.equal(end.state, 'FAILED');
    assert.equal(end.error?.code, 'IMAGE_REFUSED');
    const query = 'query ($id: ID!) { template(id: $id) { state stateReason } }';
    const { template: row } = await api.request<{ template: { state: string; stateReason: string } }>(query, {
      id: template.id,
    });
    assert.equal(row.state, 'ERROR');
    assert.ok(row.stateReason.length > 10);
  });
});
