import { randomUUID } from 'node:crypto';
import type { HostAgent } from '../domain/host-agent.ts';
import { encodeId } from '../domain/ids.ts';
import { cancelOf, type HostLinks, unreachable } from './links.ts';
import type { ProgressBoard } from './progress.ts';

export const ASK_TIMEOUT_MS = 10_000;
/** Pieces of a serial log that wait for a slow reader; beyond, the stream ends and the reader may ask anew. */
const PIECES_MAX = 256;

interface Piece {
  offset: number;
  bytes: Buffer;
}

/** The hosts linked to this process, as the rest of it may ask them. */
export class LinkedHostAgent implements HostAgent {
  readonly #links: HostLinks;
  readonly #progress: ProgressBoard;
  readonly #watched = new Map<string, { hostId: number; push: (piece: Piece) => boolean; end: () => void }>();

  constructor(links: HostLinks, progress: ProgressBoard) {
    this.#links = links;
    this.#progress = progress;
    links.onGone((hostId) => {
      for (const watched of this.#watched.values()) if (watched.hostId === hostId) watched.end();
    });
  }

  async screenshot(hostId: number, vmUid: Buffer): Promise<Buffer> {
    const vmId = encodeId('vm', vmUid);
    const { base64 } = await this.#links.ask(hostId, 'ScreenshotRequest', { vmId }, ASK_TIMEOUT_MS);
    return Buffer.from(base64 ?? '', 'base64');
  }

  async serialLog(hostId: number, vmUid: Buffer, lastBytes: number): Promise<Buffer> {
    const vmId = encodeId('vm', vmUid);
    const { base64 } = await this.#links.ask(hostId, 'SerialLogRequest', { vmId, lastBytes }, ASK_TIMEOUT_MS);
    return Buffer.from(base64 ?? '', 'base64');
  }

  watchSerial(hostId: number, vmUid: Buffer, lastBytes: number): AsyncIterableIterator<Piece> {
    const commandId = `ask.${randomUUID()}`;
    const queue: Piece[] = [];
    let wake: (() => void) | undefined;
    let ended = false;
    if (!this.#links.has(hostId)) throw unreachable();
    this.#watched.set(commandId, {
      hostId,
      push(piece) {
        if (queue.length >= PIECES_MAX) ended = true;
        else queue.push(piece);
        wake?.();
        return !ended;
      },
      end() {
        ended = true;
        wake?.();
      },
    });
    const command = { __typename: 'WatchSerialRequest', commandId, epoch: 0, timeoutMs: 0 };
    this.#links.tell(hostId, command, { vmId: encodeId('vm', vmUid), lastBytes });
    const stop = async (): Promise<IteratorResult<Piece>> => {
      ended = true;
      wake?.();
      if (this.#watched.delete(commandId) && this.#links.has(hostId)) this.#links.tell(hostId, cancelOf(commandId));
      return { value: undefined, done: true };
    };
    return {
      async next() {
        while (queue.length === 0 && !ended) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
          wake = undefined;
        }
        const value = queue.shift();
        return value ? { value, done: false } : stop();
      },
      return: stop,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** A piece from a host. @returns false when nobody watches, so that the host stops sending; FOREIGN: of another's */
  serialPiece(hostId: number, commandId: string, piece: Piece): boolean | 'FOREIGN' {
    const watched = this.#watched.get(commandId);
    if (watched && watched.hostId !== hostId) return 'FOREIGN';
    return watched?.push(piece) ?? false;
  }

  progressOf(jobId: number) {
    return this.#progress.of(jobId);
  }

  listenProgress(listener: Parameters<HostAgent['listenProgress']>[0]): () => void {
    return this.#progress.listen(listener);
  }
}
