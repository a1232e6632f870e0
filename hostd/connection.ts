import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

/** What a control plane is called in its certificate, at whatever address it is. */
export const CONTROL_PLANE_NAME = 'control-plane.virtgraph';

/** The connection ended or never came to be. */
export class ConnectionLost extends Error {
  /** WebSocket close code; null: the socket broke without one. 4403: the certificate is refused. */
  readonly closeCode: number | null;

  constructor(message: string, closeCode: number | null = null) {
    super(message);
    this.name = 'ConnectionLost';
    this.closeCode = closeCode;
  }
}

/** The server answered a request with errors, or not in time. The connection itself stands. */
export class RequestFailed extends Error {
  /** `extensions.code` of each error; empty: it wasn't answered in time. */
  readonly codes: readonly string[];

  constructor(message: string, codes: readonly string[] = []) {
    super(message);
    this.name = 'RequestFailed';
    this.codes = codes;
  }
}

export interface ConnectionOptions {
  url: string;
  /** Whose certificate the control plane has to show, in PEM. */
  authority: string;
  /** What this host shows, in PEM. Null: only `register` will be allowed. */
  own: { key: string; certificate: string } | null;
  /** A ping after this long; without its pong after as long again the connection is given up. */
  keepAliveMs: number;
  /** Bounds the handshake and, unless told otherwise, each request. */
  requestTimeoutMs: number;
  /** Aborted: the socket is dropped, whatever it is doing. */
  signal: AbortSignal;
}

export interface Connection {
  /** Throws `RequestFailed` or `ConnectionLost`. */
  request<Data>(query: string, variables: Record<string, unknown>, timeoutMs?: number): Promise<Data>;
  /** Returns when the server completes the subscription; throws `RequestFailed` or `ConnectionLost`. */
  subscribe<Data>(query: string, variables: Record<string, unknown>, next: (data: Data) => void): Promise<void>;
  /** Resolves, once, with why the connection ended. */
  readonly lost: Promise<ConnectionLost>;
  /** Ends in order: the server is told. */
  close(): void;
  /** Drops the socket as a broken cable would. */
  destroy(why: string): void;
}

const CLOSE_MS = 1_000;
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

type GraphqlErrors = readonly { message: string; extensions?: { code?: unknown } | undefined }[];

/** Opens one connection that never reconnects by itself. Throws `ConnectionLost`. */
export async function connect(options: ConnectionOptions): Promise<Connection> {
  const { url, authority, own, keepAliveMs, requestTimeoutMs, signal } = options;
  const tls = {
    ca: authority,
    servername: CONTROL_PLANE_NAME,
    minVersion: 'TLSv1.3' as const,
    ...(own && { key: own.key, cert: own.certificate }),
  };
  const lost = Promise.withResolvers<ConnectionLost>();
  const connected = Promise.withResolvers<void>();
  let socket: WebSocket | undefined;
  let pongDue: NodeJS.Timeout | undefined;
  let ended: ConnectionLost | undefined;

  class LinkSocket extends WebSocket {
    constructor(address: string, protocol: string) {
      super(address, protocol, {
        perMessageDeflate: false,
        handshakeTimeout: requestTimeoutMs,
        maxPayload: MAX_MESSAGE_BYTES,
        ...tls,
      });
      socket = this;
    }
  }

  const end = (why: ConnectionLost): void => {
    if (ended) return;
    ended = why;
    clearTimeout(pongDue);
    signal.removeEventListener('abort', aborted);
    // Disposed before the client itself sees the end: it would otherwise reconnect after an orderly close.
    client.dispose()?.then(undefined, () => undefined);
    lost.resolve(why);
    connected.reject(why);
  };
  const destroy = (why: string): void => {
    end(new ConnectionLost(why));
    socket?.terminate();
  };
  const aborted = (): void => {
    // One that is closing in order already is left to it.
    if (!ended) destroy('dropped by this host');
  };

  const client = createClient({
    url,
    webSocketImpl: LinkSocket,
    lazy: false,
    retryAttempts: 0,
    onNonLazyError: (error) => end(toLost(error)),
    connectionAckWaitTimeout: requestTimeoutMs,
    keepAlive: keepAliveMs,
    on: {
      connected: () => connected.resolve(),
      error: (error) => end(toLost(error)),
      closed: (event) => end(toLost(event)),
      ping: (received) => {
        // TCP says nothing of a link that was cut silently: only an answer does.
        if (!received) pongDue = setTimeout(() => destroy('no answer to a ping'), keepAliveMs);
      },
      // Any message is a sign of life; a pong may wait behind a large one.
      message: () => clearTimeout(pongDue),
    },
  });

  signal.addEventListener('abort', aborted, { once: true });
  if (signal.aborted) aborted();
  await connected.promise;

  const subscribe = <Data>(
    query: string,
    variables: Record<string, unknown>,
    next: (data: Data) => void,
  ): Promise<void> =>
    new Promise((resolve, reject) => {
      if (ended) return reject(ended);
      client.subscribe<Data>(
        { query, variables },
        {
          next: ({ data, errors }) => {
            if (errors?.length) reject(toFailed(errors as GraphqlErrors));
            else if (data) next(data as Data);
          },
          error: (error) => reject(Array.isArray(error) ? toFailed(error) : (ended ?? toLost(error))),
          complete: () => (ended ? reject(ended) : resolve()),
        },
      );
    });

  return {
    request: <Data>(query: string, variables: Record<string, unknown>, timeoutMs = requestTimeoutMs) =>
      new Promise<Data>((resolve, reject) => {
        const timer = setTimeout(() => reject(new RequestFailed(`not answered in ${timeoutMs} ms`)), timeoutMs);
        subscribe<Data>(query, variables, resolve)
          .then(() => reject(new RequestFailed('answered without data')), reject)
          .finally(() => clearTimeout(timer));
      }),
    subscribe,
    lost: lost.promise,
    close: () => {
      end(new ConnectionLost('closed by this host'));
      socket?.close(1000, 'closing');
      // A peer that is gone answers no closing handshake, and the process shouldn't outlive its wish to end.
      setTimeout(() => socket?.terminate(), CLOSE_MS).unref();
    },
    destroy,
  };
}

function toFailed(errors: GraphqlErrors): RequestFailed {
  const codes = errors.map(({ extensions }) => String(extensions?.code ?? 'UNKNOWN'));
  return new RequestFailed(errors.map(({ message }) => message).join('; '), codes);
}

/** What OpenSSL says, and what that means here. */
const TLS_TROUBLE: [said: RegExp, means: string][] = [
  [/wrong version number|packet length too long/, 'it speaks no TLS: hosts have a port of their own'],
  [
    /self-signed certificate|unable to (verify|get)|signature failure|unsuitable certificate purpose|Altnames/,
    'it is not a control plane that this host has joined',
  ],
];

/** graphql-ws hands over whatever ended the socket: a close event, an error event or an error. */
export function toLost(cause: unknown): ConnectionLost {
  const { code, reason, message } = cause as { code?: unknown; reason?: unknown; message?: unknown };
  if (typeof code === 'number') return new ConnectionLost(`closed with ${code} ${reason || ''}`.trim(), code);
  const said = String(message ?? cause);
  const means = TLS_TROUBLE.find(([pattern]) => pattern.test(said))?.[1];
  return new ConnectionLost(means ? `${means} (${said})` : said);
}
