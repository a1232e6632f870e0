import assert from 'node:assert/strict';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

/** Small numbers that repeat by their seed. */
export function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Holds no connection for long: it leaves after a few messages, by the protocol or by tearing the connection. */
export class RestlessClient {
  connections = 0;
  torn = 0;
  readonly #urls: string[];
  readonly #token: string;
  readonly #roll: (below: number) => number;
  readonly #patience: number;

  /** @param patience how many messages it takes at most before it leaves */
  constructor(urls: string[], token: string, seed: number, patience: number) {
    this.#urls = urls;
    this.#token = token;
    this.#roll = dice(seed);
    this.#patience = patience;
  }

  /** What one connection, to the next of the control planes, brings until it is left. What came after that is lost. */
  async *stretch<Message>(query: string, variables: Record<string, unknown>): AsyncGenerator<Message> {
    const url = this.#urls[this.connections++ % this.#urls.length]!;
    let socket: WebSocket | undefined;
    const client = createClient({
      url: url.replace(/^http/, 'ws').concat('/graphql'),
      connectionParams: { authorization: `Bearer ${this.#token}` },
      webSocketImpl: WebSocket,
      retryAttempts: 0,
      on: { connected: (opened) => (socket = opened as WebSocket) },
    });
    const tear = this.#roll(2) === 0;
    let takes = this.#patience === Infinity ? Infinity : this.#roll(this.#patience + 1);
    try {
      for await (const { data, errors } of client.iterate<Record<string, Message>>({ query, variables })) {
        assert.equal(errors, undefined);
        if (takes-- > 0) {
          yield Object.values(data!)[0]!;
          continue;
        }
        if (!tear) return;
        this.torn++;
        socket!.terminate();
        return;
      }
    } finally {
      await client.dispose();
    }
  }
}
