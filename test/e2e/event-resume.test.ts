import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { type ControlApi, GraphqlFailure } from '../../setup/graphql.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { type Estate, endOf, makeEstate, Product, registerTinyLinux } from '../support/product.ts';
import { dice, RestlessClient } from '../support/restless-client.ts';

const WRITERS = 6;
const WRITES = 80;
const VM_WRITES = 16;
/** Most of them fit only some states: the others are refused. */
const VM_MUTATIONS = 'startVm stopVm rebootVm resetVm pauseVm resumeVm destroyVm recoverVm expungeVm updateVm'.split(
  ' ',
);
const LAST = 'the last one';
const SETTLED_MS = 5_000;

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

interface Event {
  seq: string;
  type: string;
  actor: string;
  reason: string | null;
  changes: { field: string; before: string | null; after: string | null }[];
}

const EVENTS =
  'subscription ($afterSeq: String, $subjectId: ID) { eventAppended(afterSeq: $afterSeq, subjectId: $subjectId) ' +
  '{ seq type actor reason changes { field before after } } }';

/** All events from the first on, up to the last that the test makes. */
async function followEvents(client: RestlessClient, subjectId: string | null): Promise<Event[]> {
  const seen: Event[] = [];
  while (seen.at(-1)?.reason !== LAST) {
    const afterSeq = seen.at(-1)?.seq ?? '0';
    for await (const event of client.stretch<Event>(EVENTS, { afterSeq, subjectId })) {
      seen.push(event);
      if (event.reason === LAST) break;
    }
  }
  return seen;
}

type Watched = Record<string, unknown> & { id: string; deletedAt: string | null };

const VMS =
  'subscription ($zoneId: ID!) { vmChanged(zoneId: $zoneId) ' +
  '{ id deletedAt name state generation epoch host { id } activeJob { id } observed { state } } }';
const HOSTS =
  'subscription ($zoneId: ID!) { hostChanged(zoneId: $zoneId) ' +
  '{ id deletedAt name wantedState linkState generation vcpusReserved memoryReservedMib } }';

/** Keeps `view` until it has what was written last, and equals what is in the database. */
async function followSet(
  client: RestlessClient,
  query: string,
  zoneId: string,
  view: Map<string, Watched>,
  isLast: (row: Watched) => boolean,
  inDatabase: () => Promise<Map<string, Watched>>,
): Promise<void> {
  for (;;) {
    // What left while nobody was connected is told of to nobody: each connection begins with all that is there.
    view.clear();
    for await (const row of client.stretch<Watched>(query, { zoneId })) {
      if (row.deletedAt === null) view.set(row.id, row);
      else view.delete(row.id);
      if ([...view.values()].some(isLast) && isDeepStrictEqual(view, await inDatabase())) return;
    }
  }
}

describe(`clients that come and go while six write through two control planes (SEED=${SEED})`, {
  timeout: 60_000,
}, () => {
  let product: Product;
  let urls: string[];
  let hostsUrls: string[];
  let apis: ControlApi[];
  let token: string;
  let estate: Estate;

  before(async () => {
    product = await Product.open();
    const planes = await Promise.all([product.control(), product.control()]);
    urls = planes.map(({ url }) => url);
    hostsUrls = planes.map(({ hostsUrl }) => hostsUrl);
    token = (await readFile(join(product.folder, 'admin-token'), 'utf8')).trim();
    apis = await Promise.all(urls.map((url) => product.api(url)));
    estate = await makeEstate(apis[0]!, '/srv/primary', { hosts: 4 });
  });
  after(() => product.close());

  /** Each writer goes on when its last request is answered. Where the next one goes, and what it is, it rolls. */
  const write = (one: (writer: number, roll: (below: number) => number) => Promise<void>) =>
    Promise.all(Array.from({ length: WRITERS }, (_, writer) => one(writer, dice(SEED + writer))));

  it('every event arrives once, in order, whenever and wherever its follower connects again', async (t) => {
    const accepted: string[] = [];
    const refused = new Map<string, string>();
    const { zoneId } = estate;
    const restless = new RestlessClient(urls, token, SEED, 20);
    const ofZone = new RestlessClient(urls, token, SEED + 1, 5);
    const following = Promise.all([
      followEvents(restless, null),
      followEvents(new RestlessClient(urls, token, SEED, Infinity), null),
      followEvents(ofZone, zoneId),
    ]);

    await write(async (writer, roll) => {
      const size = { vcpus: 1, memoryMib: 128 };
      for (let i = 0; i < WRITES; i++) {
        const reason = `${writer}-${i}`;
        const [mutation, input] = (
          [
            ['createPod', { zoneId, name: reason }],
            ['createOffering', { name: reason, ...size }],
            ['updateOffering', { id: estate.offeringId, name: reason }],
            ['updateZone', { id: zoneId, name: reason }],
            // Only the first to change the zone can mean this one.
            ['updateZone', { id: zoneId, name: reason, expectedGeneration: 1 }],
            // All six want the same name at about the same time: one gets it.
            ['createOffering', { name: `for all ${i >> 3}`, ...size }],
          ] as const
        )[roll(6)]!;
        try {
          await apis[roll(2)]!.mutate(mutation, { ...input, reason }, '__typename');
          accepted.push(reason);
        } catch (error) {
          if (!(error instanceof GraphqlFailure)) throw error;
          refused.set(reason, error.codes.join());
        }
      }
    });
    await apis[0]!.mutate('updateZone', { id: zoneId, name: 'the end', reason: LAST }, 'zone { id }');
    const [all, steady, zone] = await following;

    const { db } = product.database;
    const rows = await db.selectFrom('event').selectAll().orderBy('seq').execute();
    const table = rows.map(({ seq, type, actor, reason, changes }) => ({
      seq: String(seq),
      type,
      actor,
      reason,
      changes: JSON.parse(changes as string) as Event['changes'],
    }));
    assert.deepEqual(all, table);
    assert.deepEqual(steady, table);
    assert.deepEqual(
      zone,
      table.filter((_, i) => rows[i]!.subject_kind === 'zone'),
    );
    const written = all.flatMap(({ reason }) => reason ?? []).sort();
    assert.deepEqual(written, [...accepted, LAST].sort(), 'each write that was accepted is one event, no other is');
    assert.deepEqual(
      [...new Set(refused.values())].sort(),
      ['ALREADY_EXISTS', 'CONFLICT'],
      JSON.stringify([...refused]),
    );
    assert.ok(restless.torn > 0 && restless.torn < restless.connections, 'it left in both ways');
    t.diagnostic(
      `${accepted.length} accepted, ${refused.size} refused; ${restless.connections} and ${ofZone.connections} connections, ` +
        `${restless.torn + ofZone.torn} torn`,
    );
  });

  it('a set that is watched so ends as it is in the database', async (t) => {
    const { zoneId, offeringId } = estate;
    for (const [i, name] of ['a', 'b'].entries()) {
      const fake = `--hypervisor fake --count 2 --name ${name} --data ${join(product.folder, name)}`.split(' ');
      await product.hostd([hostsUrls[i]!, hostsUrls[1 - i]!], estate.joinToken, fake);
    }
    const templateId = await registerTinyLinux(apis[0]!, zoneId);
    const clients = [12, 12, Infinity].map((patience, i) => new RestlessClient(urls, token, SEED + i, patience));
    const [vms, hosts, steadyVms] = [
      new Map<string, Watched>(),
      new Map<string, Watched>(),
      new Map<string, Watched>(),
    ];
    const isLastVm = (vm: Watched) => vm['name'] === LAST;
    const isLastHost = (host: Watched) => host['wantedState'] === 'DISABLED';
    const following = Promise.all([
      followSet(clients[0]!, VMS, zoneId, vms, isLastVm, vmsInDatabase),
      followSet(clients[1]!, HOSTS, zoneId, hosts, isLastHost, hostsInDatabase),
      followSet(clients[2]!, VMS, zoneId, steadyVms, isLastVm, vmsInDatabase),
    ]);

    const create = async (api: ControlApi, name: string): Promise<string> => {
      const input = { zoneId, offeringId, templateId, name };
      const { vm, job } = await api.mutate<{ vm: { id: string }; job: { id: string } }>(
        'createVm',
        input,
        'vm { id } job { id }',
      );
      assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED');
      return vm.id;
    };
    const kept = await create(apis[0]!, 'kept');
    const ends = new Map<string, number>();
    await write(async (writer, roll) => {
      let id = await create(apis[roll(2)]!, `${writer}`);
      for (let i = 0; i < VM_WRITES; i++) {
        const mutation = VM_MUTATIONS[roll(VM_MUTATIONS.length)]!;
        const input = mutation === 'updateVm' ? { id, name: `${writer}-${i}` } : { id };
        let end = 'DONE';
        try {
          const { job } = await apis[roll(2)]!.mutate<{ job: { id: string } | null }>(mutation, input, 'job { id }');
          if (job) end = (await endOf(apis[roll(2)]!, job.id)).state;
          if (mutation === 'expungeVm') id = await create(apis[roll(2)]!, `${writer}-anew-${i}`);
        } catch (error) {
          if (!(error instanceof GraphqlFailure)) throw error;
          end = error.codes.join();
        }
        ends.set(end, (ends.get(end) ?? 0) + 1);
      }
    });
    // More at once than are told one by one: the newest is.
    for (const name of ['1', '2', '3', '4', '5', LAST])
      await apis[1]!.mutate('updateVm', { id: kept, name }, 'vm { id }');
    const [host] = (await hostsInDatabase()).keys();
    await apis[1]!.mutate('disableHost', { id: host }, 'host { id }');
    await Promise.race([following, once(AbortSignal.timeout(SETTLED_MS), 'abort')]);
    const inDatabase = await vmsInDatabase();
    assert.deepEqual(vms, inDatabase);
    assert.deepEqual(steadyVms, inDatabase);
    assert.deepEqual(hosts, await hostsInDatabase());
    assert.deepEqual(
      [...ends.keys()].filter((end) => !['DONE', 'SUCCEEDED', 'INVALID_STATE'].includes(end)),
      [],
    );
    assert.ok(clients[0]!.connections > 1);
    assert.equal(clients[2]!.connections, 1);
    const connected = clients.map(({ connections, torn }) => `${connections} connections, ${torn} torn`);
    t.diagnostic(`${JSON.stringify(Object.fromEntries(ends))}; ${connected.join('; ')}`);
  });

  async function vmsInDatabase(): Promise<Map<string, Watched>> {
    const rows = await product.database.db
      .selectFrom('vm')
      .leftJoin('host', 'host.id', 'vm.host_id')
      .leftJoin('job', 'job.id', 'vm.active_job_id')
      .where('vm.deleted_at', 'is', null)
      .select(['vm.uid', 'vm.name', 'vm.state', 'vm.generation', 'vm.epoch', 'vm.observed_state'])
      .select(['host.uid as hostUid', 'job.uid as jobUid'])
      .execute();
    return byId(
      rows.map(({ uid, hostUid, jobUid, observed_state, ...columns }) => ({
        id: encodeId('vm', uid),
        deletedAt: null,
        ...columns,
        host: hostUid && { id: encodeId('host', hostUid) },
        activeJob: jobUid && { id: encodeId('job', jobUid) },
        observed: observed_state && { state: observed_state },
      })),
    );
  }

  async function hostsInDatabase(): Promise<Map<string, Watched>> {
    const rows = await product.database.db.selectFrom('host').selectAll().where('deleted_at', 'is', null).execute();
    return byId(
      rows.map(({ uid, name, wanted_state, link_state, generation, vcpus_used, memory_used_mib }) => ({
        id: encodeId('host', uid),
        deletedAt: null,
        name,
        wantedState: wanted_state,
        linkState: link_state,
        generation,
        vcpusReserved: vcpus_used,
        memoryReservedMib: memory_used_mib,
      })),
    );
  }
});

const byId = (rows: Watched[]): Map<string, Watched> => new Map(rows.map((row) => [row.id, row]));
