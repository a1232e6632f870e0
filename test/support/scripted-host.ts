import type { Core } from '../../src/core.ts';
import type { Answer } from '../../src/domain/job.ts';
import { parseCommandId, type WireCommand } from '../../src/hosts/links.ts';

/** What a host does with a command: an answer, or null to say nothing. */
export type Script = (command: WireCommand & Record<string, unknown>) => Answer | null | Promise<Answer | null>;

export const done: Answer = { ok: true, result: {} };
export const failed = (code: string, message = `the script said ${code}`): Answer => ({
  ok: false,
  error: { code, message },
});

/** A host in process: takes commands as its link gives them and answers by a script. */
export class ScriptedHost {
  readonly taken: (WireCommand & Record<string, unknown>)[] = [];
  readonly #core: Core;
  readonly #hostId: number;
  readonly #script: Script;
  #stop: (() => Promise<unknown>) | undefined;

  constructor(core: Core, hostId: number, script: Script = () => done) {
    this.#core = core;
    this.#hostId = hostId;
    this.#script = script;
  }

  async open(): Promise<void> {
    const { sessionId } = await this.#core.sessions.open(
      { id: this.#hostId },
      { hypervisor: 'FAKE', version: '0', capabilities: [], vcpusTotal: 64, memoryTotalMib: 65_536, vms: [] },
    );
    const batches = this.#core.links.attach(this.#hostId, sessionId);
    this.#stop = () => batches.return!(undefined);
    void (async () => {
      for await (const batch of batches) for (const command of batch) void this.#take(command);
    })();
    await this.#core.inventory.refresh();
  }

  async close(): Promise<void> {
    await this.#stop?.();
  }

  /** Answers a command by hand. */
  async answer(command: WireCommand, answer: Answer): Promise<void> {
    const { jobId, seq } = parseCommandId(command.commandId)!;
    await this.#core.engine.answer(this.#hostId, jobId, seq, answer);
    this.#core.links.forget(this.#hostId, command.commandId);
  }

  async #take(command: WireCommand): Promise<void> {
    this.taken.push(command as WireCommand & Record<string, unknown>);
    const answer = await this.#script(command as WireCommand & Record<string, unknown>);
    if (answer && parseCommandId(command.commandId)) await this.answer(command, answer);
  }
}
