import { setTimeout as pause } from 'node:timers/promises';
import type { WebSocket } from 'ws';
import { encodeId } from '../src/domain/ids.ts';
import { insertWorld } from '../test/support/world.ts';
import { atLeast, atMost, type Benchmark } from './benchmark.ts';
import { insertVms } from './support/estate.ts';
import { inTurn, median, percentile } from './support/figures.ts';
import { openSocket, subscribeMessage } from './support/graph-socket.ts';
import type { ControlPlane, Stage } from './support/stage.ts';

const SUBSCRIBERS = 1_000;
const OPENED_AT_ONCE = 50;
/** Enough that none of them is ever held back: what one VM tells is spread to four a second. */
const VMS = 60;
const SINGLE_WARM_UP = 10;
const SINGLE_CHANGES = 60;
const SINGLE_PAUSE_MS = 300;
const WARM_UP_CHANGES = 100;
const SLICES = 15;
const CHANGES_IN_SLICE = 40;

const UPDATE = 'mutation ($input: UpdateVmInput!) { updateVm(input: $input) { vm { id } errors { message } } }';
const ONE_VM = 'subscription ($id: ID!) { vmChanged(id: $id) { id name state description } }';
const ALL_VMS = 'subscription ($id: ID!) { vmChanged(zoneId: $id) { id name state description } }';

/** What it costs to tell many of the same change. */
export const fanout: Benchmark = {
  name: 'fanout',
  about: `Changes of VMs to ${SUBSCRIBERS.toLocaleString('en')} subscribers, each on a WebSocket of its own`,
  async run(stage) {
    const world = await insertWorld(stage.db);
    await insertVms(stage.db, world, VMS);
    const rows = await stage.db.selectFrom('vm').select('uid').execute();
    const vmIds = rows.map(({ uid }) => encodeId('vm', uid));
    const control = await stage.startControl();

    const alone = await Audience.gather(stage, control, { query: ONE_VM, id: vmIds[0]!, present: 1 });
    const delaysMs = await alone.measureSingle(vmIds[0]!);
    alone.dismiss();
    const zoneId = encodeId('zone', world.zone.uid);
    const crowd = await Audience.gather(stage, control, { query: ALL_VMS, id: zoneId, present: VMS });
    const sequence = await crowd.measureSequence(vmIds);
    return [
      {
        what: 'from the mutation to a subscriber, 99 of 100',
        value: percentile(delaysMs, 0.99),
        unit: 'ms',
        bound: atMost(100, 50),
      },
      { what: 'from the mutation to a subscriber, median', value: median(delaysMs), unit: 'ms' },
      {
        what: 'deliveries, one change after the other',
        value: sequence.perSecond,
        unit: 'per s',
        bound: atLeast(40_000, 60_000),
      },
      { what: 'CPU of the control plane per delivery', value: sequence.controlUs, unit: 'µs' },
      { what: 'CPU of the load per delivery', value: sequence.loadUs, unit: 'µs' },
      { what: 'memory of the control plane', value: (await control.program.memoryMib()).now, unit: 'MiB' },
    ];
  },
};

interface Subject {
  query: string;
  id: string;
  /** How many messages tell of the present. */
  present: number;
}

/** All subscribers; they count what they are told instead of reading it, so that they cost little. */
class Audience {
  readonly #control: ControlPlane;
  readonly #sockets: WebSocket[] = [];
  #left = 0;
  #all = Promise.withResolvers<void>();
  /** Since when the subscribers count; each delivery's delay is noted. */
  #began = 0;
  #delaysMs: number[] = [];

  private constructor(control: ControlPlane) {
    this.#control = control;
  }

  static async gather(stage: Stage, control: ControlPlane, subject: Subject): Promise<Audience> {
    const audience = new Audience(control);
    stage.defer(() => audience.dismiss());
    const heard = audience.#expect(SUBSCRIBERS * subject.present);
    const message = subscribeMessage('1', subject.query, { id: subject.id });
    for (let i = 0; i < SUBSCRIBERS; i += OPENED_AT_ONCE)
      await Promise.all(Array.from({ length: OPENED_AT_ONCE }, () => audience.#admit(message)));
    await heard;
    return audience;
  }

  dismiss(): void {
    for (const socket of this.#sockets.splice(0)) socket.terminate();
  }

  /** One change at a time, with nothing before it. Answers how long each delivery took. */
  async measureSingle(vmId: string): Promise<number[]> {
    const change = async (turn: number): Promise<void> => {
      await this.#change(vmId, `single ${turn}`);
      await pause(SINGLE_PAUSE_MS);
    };
    await inTurn(SINGLE_WARM_UP, change);
    this.#delaysMs = [];
    await inTurn(SINGLE_CHANGES, (turn) => change(SINGLE_WARM_UP + turn));
    return this.#delaysMs;
  }

  /** Each change is made once everyone has been told of the one before. The rate is the median over slices. */
  async measureSequence(vmIds: readonly string[]) {
    const change = (turn: number) => this.#change(vmIds[turn % vmIds.length]!, `sequence ${turn}`);
    await inTurn(WARM_UP_CHANGES, change);
    const { program } = this.#control;
    const [controlBefore, loadBefore] = [await program.cpuMs(), process.cpuUsage()];
    const slicesMs = await inTurn(SLICES, (slice) =>
      inTurn(CHANGES_IN_SLICE, (turn) => change(WARM_UP_CHANGES + slice * CHANGES_IN_SLICE + turn)),
    );
    const load = process.cpuUsage(loadBefore);
    const deliveries = SLICES * CHANGES_IN_SLICE * SUBSCRIBERS;
    return {
      perSecond: (CHANGES_IN_SLICE * SUBSCRIBERS * 1000) / median(slicesMs),
      controlUs: (((await program.cpuMs()) - controlBefore) * 1000) / deliveries,
      loadUs: (load.user + load.system) / deliveries,
    };
  }

  async #change(id: string, description: string): Promise<void> {
    const heard = this.#expect(SUBSCRIBERS);
    await Promise.all([heard, this.#control.api.query(UPDATE, { input: { id, description } })]);
  }

  #expect(deliveries: number): Promise<void> {
    this.#left = deliveries;
    this.#all = Promise.withResolvers();
    this.#began = performance.now();
    return this.#all.promise;
  }

  async #admit(subscribe: string): Promise<void> {
    const socket = await openSocket(this.#control.url, this.#control.token);
    this.#sockets.push(socket);
    socket.on('message', (frame: Buffer) => this.#hear(frame));
    socket.on('close', (code: number) => this.#fail(new Error(`a subscriber was sent away: ${code}`)));
    socket.on('error', (error: Error) => this.#fail(error));
    socket.send(subscribe);
  }

  #hear(frame: Buffer): void {
    if (!frame.subarray(0, 24).includes('next')) this.#fail(new Error(`not a change: ${frame}`));
    this.#delaysMs.push(performance.now() - this.#began);
    this.#left--;
    if (this.#left === 0) this.#all.resolve();
    else if (this.#left < 0) this.#fail(new Error('a change was told twice'));
  }

  #fail(error: Error): void {
    if (this.#sockets.length > 0) this.#all.reject(error);
  }
}
