import { open } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';

/** QEMU says at most a few hundred KiB in one line; what is longer is no QEMU. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;
const COMMAND_TIMEOUT_MS = 20_000;

export type QmpErrorKind =
  /** The connection ended; whether a command that was under way took effect is unknown. */
  | 'closed'
  /** No answer in time; the connection goes on. */
  | 'timeout'
  /** What came is not QMP. The connection is given up. */
  | 'protocol'
  /** QEMU refused the command. */
  | 'refused';

export class QmpError extends Error {
  override readonly name = 'QmpError';
  readonly kind: QmpErrorKind;

  constructor(kind: QmpErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: QmpError) => void;
}

/**
 * One connection to a QEMU monitor. Events are told in the order in which they came relative to answers: once `stop` is
 * answered, its STOP event has been told.
 *
 * @see QEMU QMP specification, docs/interop/qmp-spec
 */
export class QmpClient {
  /** Resolves with the reason when the connection has ended, for whatever reason. */
  readonly closed: Promise<QmpError>;
  readonly #socket: Duplex;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #greeted = Promise.withResolvers<void>();
  readonly #close = Promise.withResolvers<QmpError>();
  #ended: QmpError | null = null;
  #lastId = 0;
  #partial: Buffer[] = [];
  #partialBytes = 0;

  private constructor(socket: Duplex, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    this.closed = this.#close.promise;
    this.#greeted.promise.catch(() => undefined);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#end(new QmpError('closed', `monitor: ${error.message}`, { cause: error })));
    socket.on('close', () => this.#end(new QmpError('closed', 'QEMU closed its monitor')));
    socket.on('end', () => this.#end(new QmpError('closed', 'QEMU closed its monitor')));
  }

  /**
   * Waits for the greeting on a connected socket and leaves negotiation mode. A monitor that serves someone else accepts
   * a connection but doesn't greet: `timeout`. Throws `QmpError`, or the reason of `signal`; the socket is closed then.
   */
  static async open(
    socket: Duplex,
    options: { greetingTimeoutMs: number; signal?: AbortSignal; onEvent?: (event: QmpEvent) => void },
  ): Promise<QmpClient> {
    const client = new QmpClient(socket, options.onEvent ?? (() => undefined));
    const late = new QmpError('timeout', `QEMU's monitor did not greet in ${options.greetingTimeoutMs} ms`);
    const timer = setTimeout(() => client.#end(late), options.greetingTimeoutMs);
    const abort = (): void => client.#end(new QmpError('closed', 'given up', { cause: options.signal?.reason }));
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      options.signal?.throwIfAborted();
      await client.#greeted.promise;
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      client.close();
      options.signal?.throwIfAborted();
      throw error;
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', abort);
    }
  }

  /** Answers what QEMU returns, as it came. Throws `QmpError`. */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = COMMAND_TIMEOUT_MS): Promise<unknown> {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => {
      // Its answer, should it still come, finds nobody and is dropped.
      this.#pending.delete(id);
      reject(new QmpError('timeout', `QEMU did not answer ${command} in ${timeoutMs} ms`));
    }, timeoutMs);
    const settle = <T>(how: (value: T) => void): ((value: T) => void) => {
      return (value) => {
        clearTimeout(timer);
        how(value);
      };
    };
    this.#pending.set(id, { command, resolve: settle(resolve), reject: settle(reject) });
    this.#socket.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }), id })}\n`);
    return promise;
  }

  /** Lets go of the monitor; QEMU goes on. */
  close(): void {
    this.#end(new QmpError('closed', 'the monitor was let go'));
  }

  #receive(chunk: Buffer): void {
    let from = 0;
    while (!this.#ended) {
      const end = chunk.indexOf(10, from);
      const piece = chunk.subarray(from, end < 0 ? undefined : end);
      this.#partial.push(piece);
      this.#partialBytes += piece.length;
      if (this.#partialBytes > MAX_LINE_BYTES) {
        this.#end(new QmpError('protocol', `QEMU's monitor sent a line of more than ${MAX_LINE_BYTES} bytes`));
        return;
      }
      if (end < 0) return;
      const line = Buffer.concat(this.#partial).toString('utf8').trim();
      this.#partial = [];
      this.#partialBytes = 0;
      from = end + 1;
      if (line !== '') this.#read(line);
    }
  }

  #read(line: string): void {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch (error) {
      this.#end(new QmpError('protocol', `QEMU's monitor sent no JSON: ${line.slice(0, 100)}`, { cause: error }));
      return;
    }
    if (!isRecord(message)) {
      this.#end(new QmpError('protocol', `QEMU's monitor sent no object: ${line.slice(0, 100)}`));
    } else if ('QMP' in message) {
      this.#greeted.resolve();
    } else if (typeof message['event'] === 'string') {
      this.#onEvent({ event: message['event'], data: isRecord(message['data']) ? message['data'] : {} });
    } else {
      this.#answer(message);
    }
  }

  #answer(message: Record<string, unknown>): void {
    const id = message['id'];
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (!pending) return;
    this.#pending.delete(id as number);
    const { error } = message;
    if (!isRecord(error)) pending.resolve(message['return']);
    else pending.reject(new QmpError('refused', `QEMU refused ${pending.command}: ${String(error['desc'])}`));
  }

  #end(reason: QmpError): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#socket.destroy();
    this.#greeted.reject(reason);
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
    this.#close.resolve(reason);
  }
}

/**
 * Connects to a socket in a folder through the folder's descriptor, because the path of a unix socket has room for 107
 * bytes only. Rejects with the system's error.
 */
export async function connectSocket(folder: string, name: string): Promise<Duplex> {
  const handle = await open(folder, 'r');
  try {
    const socket = connect(`/proc/self/fd/${handle.fd}/${name}`);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    socket.removeAllListeners('error');
    return socket;
  } finally {
    await handle.close();
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
