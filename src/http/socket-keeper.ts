import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Server } from 'graphql-ws';
import type { Logger } from 'pino';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import type { Limits } from './limits.ts';
import type { EdgeMetrics } from './metrics.ts';

export const CLOSE = {
  goingAway: 1001,
  internalError: 1011,
  tryAgainLater: 1013,
  forbidden: 4403,
  idle: 4408,
  tooSlow: 4429,
} as const;

/** What hooks of graphql-ws know of a connection. */
export interface Extra {
  socket: WebSocket;
  request: IncomingMessage;
  requestId: string;
  /** Whether it has something open; a socket that has not, and says nothing, is closed. Programs' own never are. */
  isBusy?: () => boolean;
}

export interface SocketKeeperOptions<E extends Extra> {
  /** Label of metrics and log lines. */
  path: string;
  maxPayload: number;
  protocol: Server<E>;
  limits: Limits;
  metrics: EdgeMetrics;
  log: Logger;
}

const KEEP_ALIVE_MS = 12_000;
const CLOSE_GRACE_MS = 2_000;
const SUBPROTOCOL = 'graphql-transport-ws';

interface Kept {
  /** Whether anything was heard since the last ping. */
  alive: boolean;
  extra: Extra;
  /** When the last message came, or it was last seen busy. */
  heardAt: number;
  transport: Duplex & { bytesWritten?: number };
  /** Bytes that the kernel had taken at the last look, and since when it is the same. */
  flushed: number;
  since: number;
}

/** Holds the WebSockets of one path: takes them in, pings them, ends the slow and the dead, closes them all. */
export class SocketKeeper<E extends Extra> {
  readonly #options: SocketKeeperOptions<E>;
  readonly #server: WebSocketServer;
  readonly #kept = new Map<WebSocket, Kept>();
  readonly #timers: NodeJS.Timeout[];
  #closing = false;

  constructor(options: SocketKeeperOptions<E>) {
    this.#options = options;
    this.#server = new WebSocketServer({
      noServer: true,
      maxPayload: options.maxPayload,
      perMessageDeflate: false,
      handleProtocols: (offered) => offered.has(SUBPROTOCOL) && SUBPROTOCOL,
    });
    this.#timers = [
      setInterval(() => this.#ping(), KEEP_ALIVE_MS),
      setInterval(() => this.#endStalled(), Math.max(50, options.limits.stalledMs / 4)),
      setInterval(() => this.#endIdle(), Math.max(20, options.limits.idleSocketMs / 10)),
    ];
    for (const timer of this.#timers) timer.unref();
  }

  get isFull(): boolean {
    return this.#closing || this.#kept.size >= this.#options.limits.sockets;
  }

  accept(request: IncomingMessage, transport: Duplex, head: Buffer, extraFor: (socket: WebSocket) => E): void {
    this.#server.handleUpgrade(request, transport, head, (socket) => this.#keep(socket, transport, extraFor(socket)));
  }

  #keep(socket: WebSocket, transport: Duplex, extra: E): void {
    const { protocol, metrics, path, log } = this.#options;
    const kept: Kept = {
      alive: true,
      extra,
      heardAt: performance.now(),
      transport,
      flushed: 0,
      since: performance.now(),
    };
    this.#kept.set(socket, kept);
    metrics.sockets.inc({ path });
    const closed = protocol.opened(
      {
        protocol: socket.protocol,
        send: (data) => this.#send(socket, data),
        close: (code, reason) => socket.close(code, reason),
        onMessage: (handle) => {
          socket.on('message', (data) => {
            // Whoever was told that it is closed may go on talking; nobody listens.
            if (socket.readyState !== WebSocket.OPEN) return;
            kept.alive = true;
            if (!isKeepAlive(data)) kept.heardAt = performance.now();
            handle(String(data)).catch((error: unknown) => {
              log.error({ err: error, requestId: extra.requestId }, 'a WebSocket message could not be handled');
              socket.close(CLOSE.internalError, 'Internal error');
            });
          });
        },
      },
      extra,
    );
    socket.on('pong', () => {
      kept.alive = true;
    });
    // A broken or oversized frame: ws itself closes with the code that fits.
    socket.on('error', (error) => log.info({ err: error, requestId: extra.requestId }, 'WebSocket error'));
    socket.once('close', (code, reason) => {
      this.#kept.delete(socket);
      metrics.sockets.dec({ path });
      metrics.socketsClosed.inc({ path, code: String(slow.has(socket) ? CLOSE.tooSlow : code) });
      closed(code, String(reason)).catch((error: unknown) =>
        log.error({ err: error, requestId: extra.requestId }, 'what a WebSocket had open ended badly'),
      );
    });
  }

  #send(socket: WebSocket, data: string): Promise<void> {
    if (socket.bufferedAmount > this.#options.limits.bufferedBytes) closeSlow(socket);
    // Whoever sends to a socket that closes has nothing to wait for: its `close` ends what it had open.
    if (socket.readyState !== WebSocket.OPEN) return Promise.resolve();
    return new Promise((resolve) => socket.send(data, () => resolve()));
  }

  #ping(): void {
    for (const [socket, kept] of this.#kept) {
      if (!kept.alive) socket.terminate();
      else if (socket.readyState === WebSocket.OPEN) {
        kept.alive = false;
        socket.ping();
      }
    }
  }

  /** Whoever leaves something unread, and takes nothing of it for a while, would be buffered for without end. */
  #endStalled(): void {
    const now = performance.now();
    for (const [socket, kept] of this.#kept) {
      const waiting = kept.transport.writableLength;
      const flushed = (kept.transport.bytesWritten ?? 0) - waiting;
      if (waiting === 0 || flushed !== kept.flushed) {
        kept.flushed = flushed;
        kept.since = now;
      } else if (now - kept.since >= this.#options.limits.stalledMs) closeSlow(socket);
    }
  }

  /** Whoever has nothing open and asks for nothing takes a place from others. */
  #endIdle(): void {
    const now = performance.now();
    for (const [socket, kept] of this.#kept) {
      const { isBusy } = kept.extra;
      if (!isBusy || isBusy()) kept.heardAt = now;
      else if (now - kept.heardAt >= this.#options.limits.idleSocketMs) socket.close(CLOSE.idle, 'Idle');
    }
  }

  /** Says good-bye to all, and resolves when they are gone. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const timer of this.#timers) clearInterval(timer);
    const sockets = [...this.#kept.keys()];
    const gone = Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve))));
    for (const socket of sockets) socket.close(CLOSE.goingAway, 'Going away');
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.terminate();
    }, CLOSE_GRACE_MS);
    await gone;
    clearTimeout(timer);
    this.#server.close();
  }
}

/** What clients send only to be heard of, at most so long. */
const isKeepAlive = (data: RawData): boolean =>
  (data as Buffer).length < 200 && /"type"\s*:\s*"p[io]ng"/.test(String(data));

/** Those that were closed for being slow: their peer's own code never comes. */
const slow = new WeakSet<WebSocket>();

/** The close frame stands behind what is not read. */
export function closeSlow(socket: WebSocket): void {
  if (socket.readyState !== WebSocket.OPEN) return;
  slow.add(socket);
  closeForGood(socket, CLOSE.tooSlow, 'Too slow');
}

/** Cut soon after it is told: the other side may neither read it nor close its own. */
export function closeForGood(socket: WebSocket, code: number, reason: string | Buffer): void {
  socket.close(code, reason);
  const timer = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS);
  socket.once('close', () => clearTimeout(timer));
}
