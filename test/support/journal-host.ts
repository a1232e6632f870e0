import type { Core } from '../../src/core.ts';
import type { Answer } from '../../src/domain/job.ts';
import type { ObservedVmState } from '../../src/domain/vm-state.ts';
import { parseCommandId, type WireCommand } from '../../src/hosts/links.ts';

export type Command = WireCommand & Record<string, unknown>;
/** What becomes of a command that was never seen before: it works, it fails so, or nothing is done and nothing said. */
export type Verdict = 'works' | 'silence' | Extract<Answer, { ok: false }>;
/** @param name step of the job that the command is */
export type Script = (command: Command) => Verdict | Promise<Verdict>;

export const fails = (code: string, message = `The host says ${code}.`): Verdict => ({
  ok: false,
  error: { code, message },
});

const ROOM = { vcpusTotal: 4_096, memoryTotalMib: 4_194_304 };
const CONTROLLED: Record<string, ObservedVmState | undefined> = { PAUSE: 'PAUSED', RESUME: 'RUNNING' };

/**
 * A host as hostd is: it acts once on each command id, keeps the answer, says it again when asked again, refuses old
 * epochs, and tells what it runs when it comes back. It may be linked to one control plane after another.
 */
export class JournalHost {
  readonly id: number;
  /** Every delivery, repeats included. */
  readonly deliveries: Command[] = [];
  readonly journal = new Map<string, Answer>();
  readonly vms = new Map<string, { state: ObservedVmState; epoch: number }>();
  readonly volumes = new Set<string>();
  readonly cancels: string[] = [];
  /** How often each command id had an effect. */
  readonly effects = new Map<string, number>();
  script: Script;
  /** Times that each answer is reported, at the same moment. */
  reports = 1;
  onCancel: (commandId: string) => void = () => undefined;
  sessionId = '';
  #core: Core | undefined;
  #unlink: (() => Promise<unknown>) | undefined;
  readonly #failures: unknown[] = [];
  readonly #working = new Set<Promise<void>>();

  constructor(id: number, script: Script = () => 'works') {
    this.id = id;
    this.script = script;
  }

  async link(core: Core): Promise<void> {
    this.#core = core;
    const vms = [...this.vms].map(([vmId, { state, epoch }]) => ({ vmId, state, epoch, reason: null }));
    const facts = { hypervisor: 'FAKE' as const, version: '0', capabilities: [], ...ROOM, vms };
    const { sessionId } = await core.sessions.open({ id: this.id }, facts);
    this.sessionId = sessionId;
    await core.inventory.refresh();
    const batches = core.links.attach(this.id, sessionId);
    this.#unlink = () => batches.return!(undefined);
    void this.#serve(core, batches);
  }

  async unlink(): Promise<void> {
    await this.#unlink?.();
    this.#unlink = undefined;
  }

  /** Ends with everything that is under way, and with what went wrong in it. */
  async close(): Promise<void> {
    await this.unlink();
    if (this.#failures.length > 0) throw new AggregateError(this.#failures, 'answers were not taken');
  }

  /** Resolves when every command that was taken so far has been dealt with. */
  async settled(): Promise<void> {
    while (this.#working.size > 0) await Promise.all(this.#working);
  }

  /** Does a command that was met with silence, without saying so. */
  act(command: Command): void {
    this.#do(command, 'works');
  }

  async report(core: Core, commandId: string): Promise<void> {
    const { jobId, seq } = parseCommandId(commandId)!;
    const answer = this.journal.get(commandId)!;
    await Promise.all(Array.from({ length: this.reports }, () => core.engine.answer(this.id, jobId, seq, answer)));
    core.links.forget(this.id, commandId);
  }

  async #serve(core: Core, batches: AsyncIterableIterator<WireCommand[]>): Promise<void> {
    for await (const batch of batches) {
      for (const command of batch) {
        const work = this.#take(core, command as Command).catch((error: unknown) => void this.#failures.push(error));
        const tracked = work.finally(() => this.#working.delete(tracked));
        this.#working.add(tracked);
      }
    }
  }

  async #take(core: Core, command: Command): Promise<void> {
    if (command.__typename === 'CancelCommand') {
      this.cancels.push(command.commandId);
      this.onCancel(command.commandId);
      return;
    }
    this.deliveries.push(command);
    if (!this.journal.has(command.commandId)) {
      const verdict = await this.script(command);
      if (verdict === 'silence') return;
      // Asked twice at once: the first to be decided is what was done.
      if (!this.journal.has(command.commandId)) this.#do(command, verdict);
    }
    // The link may have moved on to another control plane meanwhile; what is known is told there.
    if (this.#core === core) await this.report(core, command.commandId);
  }

  #do(command: Command, verdict: Exclude<Verdict, 'silence'>): void {
    const answer: Answer = verdict === 'works' ? this.#effect(command) : verdict;
    this.journal.set(command.commandId, answer);
    if (answer.ok) this.effects.set(command.commandId, (this.effects.get(command.commandId) ?? 0) + 1);
  }

  #effect(command: Command): Answer {
    const { vmId = '', volumeId = '' } = idsOf(command);
    const vm = this.vms.get(vmId);
    if (vm && command.epoch < vm.epoch)
      return { ok: false, error: { code: 'STALE_EPOCH', message: `${command.epoch} is below ${vm.epoch}` } };
    switch (command.__typename) {
      case 'StartVmCommand':
        this.vms.set(vmId, { state: 'RUNNING', epoch: command.epoch });
        break;
      case 'StopVmCommand':
        if (vm) this.vms.set(vmId, { state: 'STOPPED', epoch: command.epoch });
        break;
      case 'ControlVmCommand':
        if (!vm) return { ok: false, error: { code: 'NOT_FOUND', message: 'no such VM here' } };
        this.vms.set(vmId, { state: CONTROLLED[String(command['action'])] ?? vm.state, epoch: command.epoch });
        break;
      case 'RemoveVmCommand':
        this.vms.delete(vmId);
        break;
      case 'CreateVolumeCommand':
        this.volumes.add(volumeId);
        break;
      case 'DeleteVolumeCommand':
        this.volumes.delete(volumeId);
        break;
      case 'InspectImageCommand':
        return { ok: true, result: { virtualBytes: 2 ** 26, fileBytes: 2 ** 23, sha256: 'a'.repeat(64) } };
      case 'PrepareTemplateCommand':
        return { ok: true, result: { virtualBytes: 2 ** 26 } };
    }
    return { ok: true, result: {} };
  }
}

function idsOf(command: Command): { vmId?: string; volumeId?: string } {
  const { vmId, vm, volume } = command as {
    vmId?: string;
    vm?: { vmId: string };
    volume?: { volumeId: string };
  };
  const id = vmId ?? vm?.vmId;
  return { ...(id ? { vmId: id } : {}), ...(volume ? { volumeId: volume.volumeId } : {}) };
}
