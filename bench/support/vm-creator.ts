import type { ApiClient } from './api-client.ts';
import type { FakeCloud } from './fake-cloud.ts';
import { GraphSocket } from './graph-socket.ts';
import { SignalBoard } from './signal-board.ts';
import type { Stage } from './stage.ts';

const CREATE = 'mutation ($input: CreateVmInput!) { createVm(input: $input) { vm { id } errors { code message } } }';
const VM_CHANGED = 'subscription ($zoneId: ID!) { vmChanged(zoneId: $zoneId) { id state } }';

/** Creates VMs and hears of their end as a client does: by a subscription. */
export class VmCreator {
  readonly #cloud: FakeCloud;
  readonly #api: ApiClient;
  readonly #socket: GraphSocket;
  readonly #running = new SignalBoard();
  readonly #run = crypto.randomUUID();
  #created = 0;

  private constructor(cloud: FakeCloud, api: ApiClient, socket: GraphSocket) {
    this.#cloud = cloud;
    this.#api = api;
    this.#socket = socket;
    socket.subscribe<{ vmChanged: { id: string; state: string } }>(
      VM_CHANGED,
      { zoneId: cloud.vm.zoneId },
      ({ vmChanged: { id, state } }) => {
        if (state === 'RUNNING') this.#running.tell(id);
        else if (state === 'ERROR') throw new Error(`the create of ${id} failed`);
      },
    );
  }

  /** @param asker in whose name; default: root */
  static async open(
    stage: Stage,
    cloud: FakeCloud,
    asker: { api: ApiClient; token: string } = cloud.control,
  ): Promise<VmCreator> {
    const socket = await GraphSocket.open(cloud.control.url, asker.token);
    const creator = new VmCreator(cloud, asker.api, socket);
    stage.defer(() => creator.close());
    stage.breakWith(socket.broken);
    return creator;
  }

  /** Returns once the VM is told to run. */
  async create(): Promise<void> {
    const name = `vm-${++this.#created}`;
    const input = { ...this.#cloud.vm, name, idempotencyKey: `${this.#run}-${name}` };
    const { createVm } = await this.#api.query<{
      createVm: { vm: { id: string } | null; errors: object[] };
    }>(CREATE, { input });
    if (!createVm.vm) throw new Error(`createVm: ${JSON.stringify(createVm.errors)}`);
    await this.#running.heard(createVm.vm.id);
  }

  close(): void {
    this.#socket.close();
  }

  /** So many VMs, with so many under way at a time. */
  async createMany(count: number, atOnce: number): Promise<void> {
    let left = count;
    const lane = async (): Promise<void> => {
      while (left-- > 0) await this.create();
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
  }
}
