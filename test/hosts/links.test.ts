import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import pino from 'pino';
import { HostLinks, type WireCommand } from '../../src/hosts/links.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertJob, insertWorld, type World } from '../support/world.ts';

const SESSION = 'session-1';

describe('the link of a host', () => {
  let database: TestDatabase;
  let world: World;
  let host: number;
  let links: HostLinks;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2, vms: 1 });
    host = world.hosts[0]!.id;
  });
  beforeEach(async () => {
    links = new HostLinks(database.db, pino({ level: 'silent' }));
    await database.db.deleteFrom('job_step').execute();
    await database.db.deleteFrom('job').execute();
  });
  after(() => database.close());

  /** A job whose open step is a command to the host. */
  async function openCommand(state: 'RUNNING' | 'NEEDS_ATTENTION' | 'FAILED' = 'RUNNING', more: object = {}) {
    const job = await insertJob(database.db, world.vms[0]!, { state, ...more });
    const payload = JSON.stringify({ vmId: 'vm_x' });
    await database.db
      .insertInto('job_step')
      .values({
        ...{ job_id: job.id, seq: 1, name: 'removeVm', direction: 'DO', state: 'OPEN', host_id: host, vm_epoch: 3 },
        ...{ command: 'RemoveVmCommand', payload, timeout_ms: 30_000 },
      })
      .execute();
    return { jobId: job.id, seq: 1, hostId: host, command: 'RemoveVmCommand', vmEpoch: 3, timeoutMs: 30_000, payload };
  }
  const next = async (batches: AsyncIterableIterator<WireCommand[]>): Promise<string[]> => {
    const { value, done } = await batches.next();
    return done ? ['ended'] : (value as WireCommand[]).map((c) => `${c.__typename} ${c.commandId}`);
  };

  it('begins with every command that is open, as it stands in its row', async () => {
    const { jobId } = await openCommand();
    const attention = await openCommand('NEEDS_ATTENTION');
    await openCommand('FAILED');
    const { value } = await links.attach(host, SESSION).next();
    assert.deepEqual(value[0], {
      ...{ __typename: 'RemoveVmCommand', commandId: `${jobId}.1`, epoch: 3, timeoutMs: 30_000, vmId: 'vm_x' },
    });
    assert.deepEqual(
      value.slice(1).map((c: WireCommand) => c.commandId),
      [`${attention.jobId}.1`],
    );
  });

  it('listens before it reads: a command that commits in between is sent once', async () => {
    const command = await openCommand();
    const batches = links.attach(host, SESSION);
    // The read is under way; it will find the command too.
    assert.equal(links.deliver(command), true);
    assert.equal(links.deliver(command), true);
    assert.deepEqual(await next(batches), [`RemoveVmCommand ${command.jobId}.1`]);
    await links.sendOpen([host]);
    const another = await openCommand();
    links.deliver(another);
    assert.deepEqual(await next(batches), [`RemoveVmCommand ${another.jobId}.1`]);
  });

  it('asks again for a command that was sent, when it is delivered again', async () => {
    const command = await openCommand();
    const batches = links.attach(host, SESSION);
    assert.deepEqual(await next(batches), [`RemoveVmCommand ${command.jobId}.1`]);
    links.deliver(command);
    assert.deepEqual(await next(batches), [`RemoveVmCommand ${command.jobId}.1`]);
  });

  it('sends what is open anew when the host comes back, and ends the link before', async () => {
    const command = await openCommand();
    const first = links.attach(host, SESSION);
    await next(first);
    const waiting = next(first);
    const gone: number[] = [];
    links.onGone((id) => gone.push(id));
    const second = links.attach(host, 'session-2');
    assert.deepEqual(await waiting, ['ended']);
    assert.deepEqual(await next(second), [`RemoveVmCommand ${command.jobId}.1`]);
    assert.deepEqual(gone, [], 'the host is not gone, it has come back');
    assert.ok(links.has(host));
  });

  it('tells a wish to cancel with the command, once', async () => {
    const { jobId } = await openCommand('RUNNING', { cancel_requested_at: new Date() });
    const batches = links.attach(host, SESSION);
    assert.deepEqual(await next(batches), [`RemoveVmCommand ${jobId}.1`, `CancelCommand ${jobId}.1`]);
    await links.sendOpen([host]);
    links.tell(host, { __typename: 'Marker', commandId: 'x', epoch: 0, timeoutMs: 0 });
    assert.deepEqual(await next(batches), ['Marker x']);
  });

  it('gathers what comes while the host is slow into one message', async () => {
    const batches = links.attach(host, SESSION);
    await links.sendOpen([host]);
    for (let n = 0; n < 5; n++) links.tell(host, { __typename: 'X', commandId: `${n}`, epoch: 0, timeoutMs: 0 });
    assert.deepEqual(await next(batches), ['X 0', 'X 1', 'X 2', 'X 3', 'X 4']);
  });

  it('is cut when its host does not read, and leaves nothing behind', async () => {
    const batches = links.attach(host, SESSION);
    const gone: [number, string][] = [];
    links.onGone((id, sessionId) => gone.push([id, sessionId]));
    const asked = links.ask(host, 'ScreenshotRequest', {}, 60_000);
    for (let n = 0; n <= 10_001; n++) links.tell(host, { __typename: 'X', commandId: `${n}`, epoch: 0, timeoutMs: 0 });
    assert.deepEqual(await next(batches), ['ended']);
    await assert.rejects(asked, { code: 'HOST_UNREACHABLE' });
    assert.ok(!links.has(host));
    assert.deepEqual(gone, [[host, SESSION]]);
    assert.equal(links.deliver(await openCommand()), false);
  });

  it('ends when its open commands cannot be read, so that the host comes back', async () => {
    const away = new HostLinks(
      {
        selectFrom: () => {
          throw new Error('away');
        },
      } as never,
      pino({ level: 'silent' }),
    );
    const batches = away.attach(host, SESSION);
    assert.deepEqual(await next(batches), ['ended']);
    assert.ok(!away.has(host));
  });

  it('answers questions, or says why not', async () => {
    await assert.rejects(links.ask(host, 'ScreenshotRequest', {}, 1_000), { code: 'HOST_UNREACHABLE' });
    const batches = links.attach(host, SESSION);
    const asked = links.ask(host, 'ScreenshotRequest', { vmId: 'vm_1' }, 60_000);
    const { value } = await batches.next();
    const { commandId, vmId } = value[0] as WireCommand & { vmId: string };
    assert.equal(vmId, 'vm_1');
    assert.equal(links.answered(world.hosts[1]!.id, commandId, { base64: 'lie' }, null), 'FOREIGN');
    assert.equal(links.answered(host, commandId, { base64: 'AA==' }, null), true);
    assert.deepEqual(await asked, { base64: 'AA==' });
    assert.equal(links.answered(host, commandId, { base64: 'BB==' }, null), true, 'a repeat is nothing new');
    assert.equal(links.answered(host, '1.1', null, null), false, 'that is a command of a job');

    const refused = links.ask(host, 'SerialLogRequest', {}, 60_000);
    const second = (await batches.next()).value[0] as WireCommand;
    links.answered(host, second.commandId, null, { code: 'QEMU_FAILED', message: 'no' });
    await assert.rejects(refused, { code: 'HOST_REFUSED', message: 'no' });
    await assert.rejects(links.ask(host, 'SerialLogRequest', {}, 1), { code: 'TIMEOUT' });

    const lost = links.ask(host, 'SerialLogRequest', {}, 60_000);
    await batches.return!(undefined);
    await assert.rejects(lost, { code: 'HOST_UNREACHABLE' });
  });
});
