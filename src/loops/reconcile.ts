import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import { type Ids, newUid } from '../db/ids.ts';
import type { Database, Vm } from '../db/tables.ts';
import type { Writer } from '../db/writer.ts';
import { encodeId } from '../domain/ids.ts';
import { begin } from '../jobs/advance.ts';
import { settleVm } from '../jobs/vm-power.ts';

export interface ReconcileOptions {
  db: Kysely<Database>;
  writer: Writer;
  ids: Ids;
  log: Logger;
}

const ENDED = ['STOPPED', 'CRASHED', 'ABSENT'] as const;
const AT_ONCE = 500;

/**
 * Compares what is wanted with what is seen, and files a job for each difference: a VM that should run but whose host
 * saw it end gives its place back and says why. It never calls a host, and silence is no difference.
 */
export class Reconciler {
  readonly #o: ReconcileOptions;

  constructor(options: ReconcileOptions) {
    this.#o = options;
  }

  /** @param vmIds those that may differ; null: look at all */
  async settle(vmIds: number[] | null): Promise<number> {
    let query = this.#o.db
      .selectFrom('vm')
      .selectAll()
      .where('deleted_at', 'is', null)
      .where('state', 'in', ['RUNNING', 'PAUSED'])
      .where('observed_state', 'in', ENDED)
      .where('active_job_id', 'is', null)
      .where('host_id', 'is not', null)
      .whereRef('observed_epoch', '=', 'epoch')
      .limit(AT_ONCE);
    if (vmIds) query = query.where('id', 'in', vmIds);
    const vms = await query.execute();
    for (const vm of vms) await this.#file(vm);
    return vms.length;
  }

  async #file(vm: Vm): Promise<void> {
    const id = await this.#o.ids.take();
    const observed = vm.observed_state!;
    const why = vm.observed_reason ?? WHY[observed as keyof typeof WHY] ?? observed;
    const job = {
      id,
      uid: newUid(),
      target: { kind: 'vm' as const, id: vm.id, accountId: vm.account_id },
      actor: 'system',
      reason: why,
      input: { observed },
      parentId: null,
    };
    const context = {
      vm: {
        id: vm.id,
        publicId: encodeId('vm', vm.uid),
        epoch: vm.epoch,
        vcpus: vm.vcpus,
        memoryMib: vm.memory_mib,
        from: vm.state,
      },
      hostId: vm.host_id,
      reserved: true,
      volumes: [],
      observed,
      why,
    };
    const outcome = await this.#o.writer.submit(begin(settleVm, job, context));
    if (outcome.kind !== 'written')
      this.#o.log.info({ vmId: vm.id, outcome: outcome.kind }, 'a VM moved on before it was settled');
  }
}

const WHY = {
  STOPPED: 'The guest powered off.',
  CRASHED: 'QEMU ended unexpectedly.',
  ABSENT: 'Its host does not know it any more.',
};
