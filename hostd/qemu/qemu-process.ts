import { join } from 'node:path';
import type { Logger } from 'pino';
import type { ObservedVmState } from '../generated/protocol.ts';
import { CommandError } from '../hypervisor.ts';
import { RUN_FILES } from './argv.ts';
import { uuidOfId } from './ids.ts';
import { type Exit, type Launched, lastWords } from './launch.ts';
import { type End, judgeEnd, observeRunState } from './observed-state.ts';
import { kill, type ProcessIdentity, untilGone } from './proc.ts';
import { connectSocket, QmpClient, QmpError, type QmpEvent } from './qmp.ts';
import { queryRunState, queryUuid } from './queries.ts';
import { isPresent, type RunFolder } from './run-folder.ts';
import { settlesWithin } from './waiting.ts';

/** A host under load takes its time to start a process; one that takes longer is stuck. */
const LAUNCH_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 3_000;
const RECONNECT_AFTER_MS = 1_000;
const QUIT_TIMEOUT_MS = 2_000;
/** Once QEMU has said that it quits, it may still have to write what the guest wrote. */
const QUIT_EXIT_TIMEOUT_MS = 15_000;
const KILL_EXIT_TIMEOUT_MS = 10_000;
/** A guest that is still booting hears no power button: it is pressed again. */
const PRESS_AGAIN_MS = 5_000;

interface QemuProcessOptions {
  vmId: string;
  process: ProcessIdentity;
  folder: RunFolder;
  /** Null: it is not our child. */
  exited: Promise<Exit> | null;
  log: Logger;
  /** What is seen of the guest changed. */
  changed: (state: ObservedVmState, reason: string | null) => void;
}

/** One QEMU that runs, from the moment that its monitor greets, or that it is adopted, to the end of its process. */
export class QemuProcess {
  readonly process: ProcessIdentity;
  /** Resolves with how it ended, once it has. */
  readonly over: Promise<End>;
  readonly #options: QemuProcessOptions;
  readonly #over = Promise.withResolvers<End>();
  #qmp: QmpClient | null = null;
  #answers = Promise.withResolvers<void>();
  #state: ObservedVmState = 'STARTING';
  #shutdown: string | null = null;
  #ioError: string | null = null;
  #killed = false;
  #released = false;

  private constructor(options: QemuProcessOptions) {
    this.#options = options;
    this.process = options.process;
    this.over = this.#over.promise;
  }

  /** Waits for the greeting of a QEMU that was just started. Throws QEMU_FAILED with its last words. */
  static async launched(
    { monitor, exited }: Launched,
    options: Omit<QemuProcessOptions, 'exited'>,
    signal: AbortSignal,
  ): Promise<QemuProcess> {
    const qemu = new QemuProcess({ ...options, exited });
    try {
      qemu.#qmp = await QmpClient.open(monitor, {
        greetingTimeoutMs: LAUNCH_TIMEOUT_MS,
        signal,
        onEvent: (event) => qemu.#hear(event),
      });
    } catch (error) {
      if (!(error instanceof QmpError) || error.kind !== 'closed') throw asCommandError(error);
      await settlesWithin(exited, RECONNECT_AFTER_MS, signal);
      const words = (await lastWords(options.folder)) || error.message;
      throw new CommandError('QEMU_FAILED', `QEMU did not start: ${words}`, { cause: error });
    }
    qemu.#answers.resolve();
    qemu.#watch();
    return qemu;
  }

  /** Connects to a QEMU that a daemon before started. One that doesn't answer is adopted all the same. */
  static async adopted(options: Omit<QemuProcessOptions, 'exited'>): Promise<QemuProcess> {
    const qemu = new QemuProcess({ ...options, exited: null });
    if (!(await qemu.#connect())) qemu.#observe('RUNNING', 'its monitor does not answer');
    qemu.#watch();
    return qemu;
  }

  get state(): ObservedVmState {
    return this.#state;
  }

  /** Throws QEMU_FAILED while its monitor doesn't answer. */
  get qmp(): QmpClient {
    if (this.#qmp) return this.#qmp;
    throw new CommandError('QEMU_FAILED', "QEMU's monitor does not answer");
  }

  /** Lets a guest run that never ran; any other is left as it is. Throws QEMU_FAILED. */
  async letRun(signal: AbortSignal): Promise<void> {
    await settlesWithin(this.#answers.promise, LAUNCH_TIMEOUT_MS, signal);
    if (this.#state !== 'STARTING') return;
    try {
      await this.qmp.execute('cont');
      const { state, reason } = observeRunState(await queryRunState(this.qmp));
      if (state === 'STARTING') throw new CommandError('QEMU_FAILED', 'QEMU does not let the guest run');
      this.#observe(state, this.#ioError ?? reason);
    } catch (error) {
      throw asCommandError(error);
    }
  }

  /** Presses the power button until QEMU ends: true, or after `timeoutMs`: false. Throws QmpError, the signal's reason. */
  async powerDown(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    // A guest that is paused can't hear.
    if (this.#state === 'PAUSED') await this.qmp.execute('cont');
    for (;;) {
      await this.#press();
      const left = deadline - performance.now();
      if (await settlesWithin(this.over, Math.max(0, Math.min(left, PRESS_AGAIN_MS)), signal)) return true;
      if (left <= PRESS_AGAIN_MS) return false;
    }
  }

  /** Ends QEMU, by its monitor or else by the kernel. Throws QEMU_FAILED when even that doesn't end it. */
  async force(): Promise<void> {
    this.#killed = true;
    try {
      await this.qmp.execute('quit', undefined, QUIT_TIMEOUT_MS);
      if (await settlesWithin(this.over, QUIT_EXIT_TIMEOUT_MS)) return;
    } catch (error) {
      this.#options.log.debug({ err: error }, 'QEMU did not quit: it is killed');
    }
    await kill(this.process);
    if (await settlesWithin(this.over, KILL_EXIT_TIMEOUT_MS)) return;
    throw new CommandError('QEMU_FAILED', `QEMU (process ${this.process.pid}) can't be ended`);
  }

  /** Lets go of it; nothing of it is observed any more. */
  release(): void {
    this.#released = true;
    this.#qmp?.close();
  }

  async #press(): Promise<void> {
    try {
      await this.qmp.execute('system_powerdown');
    } catch (error) {
      // It may be ending already, as it should.
      if (!(error instanceof QmpError) || error.kind !== 'closed') throw error;
    }
  }

  #watch(): void {
    this.#untilOver().then(this.#over.resolve, (error: unknown) =>
      this.#options.log.error({ err: error }, 'QEMU is no longer watched'),
    );
  }

  /** A monitor that closes is the first to tell that QEMU ends; whether it did, its process tells. */
  async #untilOver(): Promise<End> {
    for (;;) {
      if (this.#qmp) {
        await this.#qmp.closed;
        this.#qmp = null;
        this.#answers = Promise.withResolvers();
      }
      if (this.#released) return new Promise(() => undefined);
      if (await this.#endsWithin(RECONNECT_AFTER_MS)) return this.#judge();
      await this.#connect();
    }
  }

  #endsWithin(timeoutMs: number): Promise<boolean> {
    const { exited } = this.#options;
    return exited ? settlesWithin(exited, timeoutMs) : untilGone(this.process, timeoutMs);
  }

  async #judge(): Promise<End> {
    return judgeEnd({
      shutdown: this.#shutdown,
      killed: this.#killed,
      exit: (await this.#options.exited) ?? null,
      ...(await readRemains(this.#options.folder)),
    });
  }

  /** Answers whether its monitor answers and is the right one. */
  async #connect(): Promise<boolean> {
    const { vmId, folder, log } = this.#options;
    try {
      const socket = await connectSocket(folder.run, RUN_FILES.monitor);
      const onEvent = (event: QmpEvent): void => this.#hear(event);
      const qmp = await QmpClient.open(socket, { greetingTimeoutMs: CONNECT_TIMEOUT_MS, onEvent });
      const uuid = await queryUuid(qmp);
      if (uuid !== uuidOfId(vmId)) {
        qmp.close();
        throw new Error(`the monitor is of a QEMU with uuid ${uuid}`);
      }
      const { state, reason } = observeRunState(await queryRunState(qmp));
      this.#qmp = qmp;
      this.#observe(state, reason);
      this.#answers.resolve();
      return true;
    } catch (error) {
      log.warn({ err: error }, "QEMU's monitor does not answer");
      return false;
    }
  }

  #hear({ event, data }: QmpEvent): void {
    switch (event) {
      case 'SHUTDOWN':
        this.#shutdown = String(data['reason']);
        return;
      case 'BLOCK_IO_ERROR':
        if (data['action'] === 'stop') this.#ioError = data['nospace'] ? 'the storage is full' : 'a disk failed';
        return;
      case 'STOP':
        // On its way down QEMU stops the guest too; that is no pause.
        if (this.#shutdown === null) this.#observe('PAUSED', this.#ioError);
        return;
      case 'RESUME':
        this.#ioError = null;
        this.#observe('RUNNING', null);
        return;
      default:
        return;
    }
  }

  #observe(state: ObservedVmState, reason: string | null): void {
    if (this.#released) return;
    this.#state = state;
    this.#options.changed(state, reason);
  }
}

/** What a QEMU that has ended left in its folder. */
export async function readRemains(folder: RunFolder): Promise<{ orderly: boolean; lastWords: string }> {
  return {
    orderly: !(await isPresent(join(folder.run, RUN_FILES.monitor))),
    lastWords: await lastWords(folder),
  };
}

/** What a monitor said as the answer to a command; anything else stays what it is. */
export function asCommandError(error: unknown): unknown {
  return error instanceof QmpError ? new CommandError('QEMU_FAILED', error.message, { cause: error }) : error;
}
