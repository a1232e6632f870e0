import { type Client, createClient } from 'graphql-ws';
import type { Kysely } from 'kysely';
import { WebSocket } from 'ws';
import type { Database } from '../db/tables.ts';
import { ERROR_CODES, type ErrorCode, VirtgraphError } from '../domain/errors.ts';
import type { HostAgent } from '../domain/host-agent.ts';
import { ASK_TIMEOUT_MS, type LinkedHostAgent } from './agent.ts';
import { type HostLinks, unreachable } from './links.ts';

interface Piece {
  offset: number;
  bytes: Buffer;
}

interface Asked {
  data?: Record<string, unknown> | null;
  errors?: readonly { message: string; extensions?: { code?: string } }[];
}

const SCREENSHOT = 'query ($hostId: Float!, $vmUid: String!) { screenshot(hostId: $hostId, vmUid: $vmUid) }';
const SERIAL_LOG =
  'query ($hostId: Float!, $vmUid: String!, $lastBytes: Int!) { serialLog(hostId: $hostId, vmUid: $vmUid, lastBytes: $lastBytes) }';
const WATCH_SERIAL =
  'subscription ($hostId: Float!, $vmUid: String!, $lastBytes: Int!) { watchSerial(hostId: $hostId, vmUid: $vmUid, lastBytes: $lastBytes) { offset base64 } }';

/**
 * Every host of the estate, wherever its link ends: asks the hosts that are linked here directly, and others through
 * the control plane that holds their link.
 */
export class PeerHostAgent implements HostAgent {
  readonly #db: Kysely<Database>;
  readonly #links: HostLinks;
  readonly #here: LinkedHostAgent;
  readonly #answerMs: number;
  readonly #socket: new (
    url: string,
    protocols: string,
  ) => WebSocket;
  /** By the id of the other process: a restart is another one, with another secret. */
  readonly #clients = new Map<string, Client>();

  /** @param answerMs for the other control plane, which gives its host `ASK_TIMEOUT_MS` of them */
  constructor(db: Kysely<Database>, links: HostLinks, here: LinkedHostAgent, answerMs = ASK_TIMEOUT_MS + 2_000) {
    this.#answerMs = answerMs;
    this.#socket = class extends WebSocket {
      constructor(url: string, protocols: string) {
        super(url, protocols, { handshakeTimeout: answerMs });
      }
    };
    this.#db = db;
    this.#links = links;
    this.#here = here;
  }

  async screenshot(hostId: number, vmUid: Buffer): Promise<Buffer> {
    if (this.#links.has(hostId)) return this.#here.screenshot(hostId, vmUid);
    return this.#ask(hostId, SCREENSHOT, 'screenshot', { vmUid: vmUid.toString('hex') });
  }

  async serialLog(hostId: number, vmUid: Buffer, lastBytes: number): Promise<Buffer> {
    if (this.#links.has(hostId)) return this.#here.serialLog(hostId, vmUid, lastBytes);
    return this.#ask(hostId, SERIAL_LOG, 'serialLog', { vmUid: vmUid.toString('hex'), lastBytes });
  }

  watchSerial(hostId: number, vmUid: Buffer, lastBytes: number): AsyncIterableIterator<Piece> {
    if (this.#links.has(hostId)) return this.#here.watchSerial(hostId, vmUid, lastBytes);
    return this.#watchElsewhere(hostId, { hostId, vmUid: vmUid.toString('hex'), lastBytes });
  }

  progressOf(jobId: number) {
    return this.#here.progressOf(jobId);
  }

  listenProgress(listener: Parameters<HostAgent['listenProgress']>[0]): () => void {
    return this.#here.listenProgress(listener);
  }

  async close(): Promise<void> {
    // One that is still connecting, in vain, is over as well.
    await Promise.allSettled([...this.#clients.values()].map((client) => client.dispose()));
  }

  async #ask(hostId: number, query: string, field: string, variables: Record<string, unknown>): Promise<Buffer> {
    const client = await this.#clientFor(hostId);
    const answers = client.iterate({ query, variables: { hostId, ...variables } });
    const silent = Promise.withResolvers<never>();
    // One that was stopped, or cut off, keeps its socket and says nothing.
    const timer = setTimeout(() => silent.reject(new Error('no answer in time')), this.#answerMs);
    const { value } = await Promise.race([answers.next(), silent.promise])
      .catch(lostPeer)
      .finally(() => clearTimeout(timer));
    return Buffer.from(String(fieldOf(value as Asked, field)), 'base64');
  }

  #watchElsewhere(hostId: number, variables: Record<string, unknown>): AsyncIterableIterator<Piece> {
    let ended = false;
    let source: AsyncIterableIterator<unknown> | undefined;
    const end = async (): Promise<IteratorResult<Piece>> => {
      ended = true;
      await source?.return?.();
      return { value: undefined, done: true };
    };
    return {
      next: async () => {
        source ??= (await this.#clientFor(hostId)).iterate({ query: WATCH_SERIAL, variables });
        const { value, done } = ended ? await end() : await source.next().catch(lostPeer);
        if (done) return { value: undefined, done: true };
        const { offset, base64 } = fieldOf(value as Asked, 'watchSerial') as { offset: number; base64: string };
        return { value: { offset, bytes: Buffer.from(base64, 'base64') }, done: false };
      },
      return: end,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  async #clientFor(hostId: number): Promise<Client> {
    const peer = await this.#db
      .selectFrom('host as h')
      .innerJoin('control_process as p', 'p.id', 'h.link_process')
      .select(['p.id', 'p.url', 'p.peer_secret'])
      .where('h.id', '=', hostId)
      .where('h.link_state', '=', 'UP')
      .executeTakeFirst();
    if (!peer) throw unreachable();
    const known = this.#clients.get(peer.id);
    if (known) return known;
    const client = createClient({
      url: `${peer.url.replace(/^http/, 'ws')}/peer`,
      webSocketImpl: this.#socket,
      connectionAckWaitTimeout: this.#answerMs,
      connectionParams: { authorization: `Bearer ${peer.peer_secret}` },
      retryAttempts: 0,
      // Open while something is asked, and a little longer.
      lazyCloseTimeout: 10_000,
      on: { closed: () => this.#clients.delete(peer.id) },
    });
    this.#clients.set(peer.id, client);
    return client;
  }
}

/** The other control plane is gone or restarting: the host will come to another. */
function lostPeer(cause: unknown): never {
  throw new VirtgraphError(
    { code: 'HOST_UNREACHABLE', message: 'The control plane that holds the link of the host does not answer.' },
    { cause },
  );
}

/** @throws VirtgraphError what the other control plane said */
function fieldOf(answer: Asked, field: string): unknown {
  const error = answer.errors?.[0];
  if (!error) return answer.data?.[field];
  const code = error.extensions?.code ?? '';
  throw new VirtgraphError({
    code: code in ERROR_CODES ? (code as ErrorCode) : 'HOST_UNREACHABLE',
    message: error.message,
  });
}
