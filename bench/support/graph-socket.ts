import { once } from 'node:events';
import { type RawData, WebSocket } from 'ws';

const PROTOCOL = 'graphql-transport-ws';

interface Message {
  type: string;
  id?: string;
  payload?: { data?: unknown; errors?: unknown };
}

interface Handlers {
  next(data: unknown): void;
  complete: (() => void) | undefined;
}

/** One WebSocket that speaks graphql-transport-ws, with any number of subscriptions. */
export class GraphSocket {
  /** Rejects when a subscription fails or the server closes; never resolves. */
  readonly broken: Promise<never>;
  readonly #socket: WebSocket;
  readonly #break = Promise.withResolvers<never>();
  readonly #handlers = new Map<string, Handlers>();
  #subscriptions = 0;
  #isClosed = false;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.broken = this.#break.promise;
    this.broken.catch(() => undefined);
    socket.on('message', (frame) => {
      try {
        this.#receive(JSON.parse(String(frame)) as Message);
      } catch (error) {
        // Of whoever subscribed: what it was told is not what it measures.
        this.#break.reject(error);
      }
    });
    socket.on('error', this.#break.reject);
    socket.on('close', (code, reason) => {
      if (!this.#isClosed) this.#break.reject(new Error(`the WebSocket was closed: ${code} ${reason}`));
    });
  }

  static async open(url: string, token: string): Promise<GraphSocket> {
    return new GraphSocket(await openSocket(url, token));
  }

  /** `next` gets the data of each event, the present included. One that ends without `complete` has failed. */
  subscribe<Data>(query: string, variables: object, next: (data: Data) => void, complete?: () => void): void {
    const id = String(++this.#subscriptions);
    this.#handlers.set(id, { next: next as Handlers['next'], complete });
    this.#socket.send(subscribeMessage(id, query, variables));
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.terminate();
  }

  #receive(message: Message): void {
    const { type, id, payload } = message;
    const handlers = this.#handlers.get(id ?? '');
    if (type === 'ping') this.#socket.send('{"type":"pong"}');
    else if (type === 'next' && payload?.data && !payload.errors) handlers!.next(payload.data);
    else if (type === 'complete' && handlers?.complete) handlers.complete();
    else this.#break.reject(new Error(`a subscription failed: ${JSON.stringify(message).slice(0, 1_000)}`));
  }
}

/** A WebSocket to `/graphql` whose connection the server has acknowledged. */
export async function openSocket(url: string, token: string): Promise<WebSocket> {
  const address = `${url.replace(/^http/, 'ws')}/graphql`;
  const socket = new WebSocket(address, PROTOCOL, { perMessageDeflate: false });
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } }));
  const [answer] = (await once(socket, 'message')) as [RawData];
  if (!String(answer).includes('connection_ack')) throw new Error(`the server did not accept: ${answer}`);
  return socket;
}

export const subscribeMessage = (id: string, query: string, variables: object): string =>
  JSON.stringify({ id, type: 'subscribe', payload: { query, variables } });
