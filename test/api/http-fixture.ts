import {
  buildSchema,
  GraphQLError,
  type GraphQLFieldResolver,
  type GraphQLObjectType,
  type GraphQLSchema,
} from 'graphql';
import { type Logger, pino } from 'pino';
import { Registry } from 'prom-client';
import { WebSocket } from 'ws';
import type { Actor } from '../../src/domain/authorize.ts';
import { VirtgraphError } from '../../src/domain/errors.ts';
import type { Shareable } from '../../src/http/fan-out.ts';
import { type HttpOptions, type HttpServer, startHttp } from '../../src/http/server.ts';

/** What a resolver of the test schema gets. */
export interface TestContext {
  actor: Actor;
  requestId: string;
  address?: string | null;
  signal: AbortSignal;
  world: World;
}

export const COLUMNS = Array.from({ length: 10 }, (_, column) => `c${column}`);

const SDL = /* GraphQL */ `
  interface Node { id: ID! }
  type Box implements Node { id: ID! value: Int! label: String broken: String! parent: Box children: [Box!]! }
  type Row { ${COLUMNS.map((name) => `${name}: String!`).join(' ')} }
  input BoxInput { id: ID!, values: [Int!], tags: [String!] }
  type Query {
    rows: [Row!]!
    box(id: ID!): Box
    boxes(first: Int = 10): [Box!]!
    strictBox: Box!
    node(id: ID!): Node
    actor: String!
    requestId: String!
    outage: String
    bug: String
    slow: String
    echo(input: BoxInput!): String!
  }
  type Mutation { setBox(id: ID!, value: Int!): Box! fail: Box }
  type Subscription {
    boxChanged(id: ID): Box!
    boxChangedAlone(id: ID): Box!
    boxChangedNamed(id: ID): Box!
    refused: Box
  }
`;

interface Box {
  __typename: 'Box';
  id: string;
  value: number;
}

/** The state behind the test schema. */
export class World {
  readonly boxes = new Map<string, Box>();
  readonly rows = Array.from({ length: 100 }, (_, row) =>
    Object.fromEntries(COLUMNS.map((name, column) => [name, `value ${row}.${column}`])),
  );
  readonly #listeners = new Set<(id: string) => void>();
  /** Executions of a subscription's selection, and sources that are open. */
  executions = 0;
  openSources = 0;
  /** Signals of `slow` that were aborted. */
  aborted = 0;
  /** When `slow` is to end; never, unless told. */
  finishSlow = new Promise<void>(() => undefined);
  /** Added to labels, to make payloads large. */
  padding = '';
  reachedSlow: () => void = () => undefined;

  set(id: string, value: number): Box {
    const box: Box = { __typename: 'Box', id, value };
    this.boxes.set(id, box);
    for (const listen of this.#listeners) listen(id);
    return box;
  }

  remove(id: string): void {
    this.boxes.delete(id);
    for (const listen of this.#listeners) listen(id);
  }

  /** The present, then each change: ids only, as the real ones. */
  async *changes(only: string | undefined): AsyncGenerator<string> {
    const queue: string[] = [];
    let wake: (() => void) | undefined;
    const listen = (id: string): void => {
      if (only !== undefined && id !== only) return;
      queue.push(id);
      wake?.();
    };
    this.#listeners.add(listen);
    this.openSources++;
    queue.push(...[...this.boxes.keys()].filter((id) => only === undefined || id === only));
    try {
      for (;;) {
        while (queue.length === 0) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        yield queue.shift()!;
      }
    } finally {
      this.#listeners.delete(listen);
      this.openSources--;
    }
  }

  /** Like `changes`, ended at once by `return()`. */
  source(only: string | undefined): AsyncIterableIterator<{ kind: 'box'; id: string; gone: boolean }> {
    const queue: string[] = [...this.boxes.keys()].filter((id) => only === undefined || id === only);
    let wake: ((result: IteratorResult<{ kind: 'box'; id: string; gone: boolean }>) => void) | undefined;
    let ended = false;
    const event = (id: string) => ({ kind: 'box' as const, id, gone: !this.boxes.has(id) });
    const listen = (id: string): void => {
      if (only !== undefined && id !== only) return;
      const waiting = wake;
      wake = undefined;
      if (waiting) waiting({ done: false, value: event(id) });
      else queue.push(id);
    };
    this.#listeners.add(listen);
    this.openSources++;
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        if (ended) return { done: true, value: undefined };
        const id = queue.shift();
        if (id !== undefined) return { done: false, value: event(id) };
        return await new Promise((resolve) => {
          wake = resolve;
        });
      },
      return: async () => {
        if (!ended) {
          ended = true;
          this.#listeners.delete(listen);
          this.openSources--;
          wake?.({ done: true, value: undefined });
        }
        return { done: true, value: undefined };
      },
    };
  }
}

type Resolvers = Record<string, Record<string, GraphQLFieldResolver<never, TestContext>>>;

export function testSchema(): GraphQLSchema {
  const schema = buildSchema(SDL);
  const boxOf = ({ id }: { id: string }, _: unknown, { world }: TestContext): unknown => {
    world.executions++;
    return world.boxes.get(id) ?? { id, value: -1 };
  };
  const source = (_: unknown, { id }: { id?: string }, { world }: TestContext): unknown => world.source(id);
  const resolvers: Resolvers = {
    Query: {
      rows: async (_source, _arguments, { world }) => world.rows,
      box: (_source, { id }, { world }) => world.boxes.get(id),
      boxes: async (_source, { first }, { world }) => [...world.boxes.values()].slice(0, first),
      strictBox: () => null,
      node: (_source, { id }, { world }) => world.boxes.get(id),
      actor: (_source, _arguments, { actor }) => (actor.kind === 'anonymous' ? 'anonymous' : actor.name),
      requestId: (_source, _arguments, { requestId }) => requestId,
      outage: async () => {
        throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', errno: -111 });
      },
      bug: async () => {
        throw new Error('canary-internal-detail');
      },
      slow: (_source, _arguments, { signal, world }) =>
        new Promise((resolve) => {
          signal.addEventListener('abort', () => {
            world.aborted++;
            resolve('aborted');
          });
          world.finishSlow.then(() => resolve('finished'));
          world.reachedSlow();
        }),
      echo: (_source, { input }) => JSON.stringify(input),
    },
    Box: {
      label: ({ value }: { value: number }, _arguments, { world }) => Promise.resolve(`box ${value}${world.padding}`),
      broken: ({ value }: { value: number }) => {
        throw new VirtgraphError({ code: 'INVALID_STATE', message: `Box ${value} is broken.`, state: 'BROKEN' });
      },
      children: ({ id }: { id: string }, _arguments, { world }) =>
        [...world.boxes.values()].filter((box) => box.id !== id).slice(0, 2),
      parent: () => null,
    },
    Mutation: {
      setBox: (_source, { id, value }, { world }) => world.set(id, value),
      fail: () => {
        throw new VirtgraphError({ code: 'CONFLICT', message: 'Someone else changed it.' });
      },
    },
    Subscription: {
      boxChanged: boxOf,
      boxChangedAlone: boxOf,
      boxChangedNamed: (id: string, _: unknown, { world }: TestContext) => world.boxes.get(id),
    },
  };
  for (const [typeName, fields] of Object.entries(resolvers)) {
    const type = schema.getType(typeName) as GraphQLObjectType;
    for (const [name, resolve] of Object.entries(fields))
      type.getFields()[name]!.resolve = resolve as GraphQLFieldResolver<unknown, unknown>;
  }
  const subscriptions = schema.getSubscriptionType()!.getFields();
  subscriptions['boxChanged']!.subscribe = source;
  subscriptions['boxChanged']!.extensions = {
    shareable: {
      hasLeft: (event) => (event as { gone: boolean }).gone,
      fits: (_schema, { selections }) => !selections.some((node) => 'name' in node && node.name.value === 'children'),
    } satisfies Shareable,
  };
  subscriptions['boxChangedAlone']!.subscribe = source;
  subscriptions['boxChangedNamed']!.extensions = { shareable: true };
  subscriptions['boxChangedNamed']!.subscribe = (_, { id }, { world }: TestContext) => world.changes(id);
  subscriptions['refused']!.subscribe = () => {
    throw new VirtgraphError({ code: 'NOT_FOUND', message: 'There is no such box.' });
  };
  return schema;
}

/** What the graph's own translation does, as far as the edge can tell. */
export function toGraphQLError(error: unknown, requestId: string, log: Pick<Logger, 'error'>): GraphQLError {
  const outer = error instanceof GraphQLError ? error : null;
  const origin = outer?.originalError ?? error;
  const where = {
    nodes: outer?.nodes ?? null,
    source: outer?.source ?? null,
    positions: outer?.positions ?? null,
    path: outer?.path ?? null,
  };
  if (outer && !outer.originalError) return outer;
  if (origin instanceof VirtgraphError)
    return new GraphQLError(origin.message, { ...where, extensions: { ...origin.data, path: undefined } });
  if ((origin as { errno?: number }).errno !== undefined)
    return new GraphQLError('The database does not answer.', { ...where, extensions: { code: 'UNAVAILABLE' } });
  log.error({ err: origin, requestId }, 'a request failed by a fault of ours');
  return new GraphQLError('A fault of Virtgraph.', { ...where, extensions: { code: 'INTERNAL', requestId } });
}

export const ADMIN: Actor = { kind: 'root-admin', tokenId: 1, name: 'admin' };

export interface TestEdge extends AsyncDisposable {
  server: HttpServer;
  world: World;
  tokens: Map<string, Actor>;
  /** Every line that was logged, as JSON. */
  logged: string[];
  reasons: string[];
  registry: Registry;
  /** POSTs a query as `admin`. */
  ask(query: string, variables?: Record<string, unknown>, headers?: Record<string, string>): Promise<TestAnswer>;
  post(body: string | Buffer, headers?: Record<string, string>): Promise<TestAnswer>;
  /** The sum of all values of a metric. */
  metric(name: string): Promise<number>;
  /** The next line logged that contains `part`. */
  nextLog(part: string): Promise<string>;
}

export interface TestAnswer {
  status: number;
  headers: Headers;
  body: {
    data?: Record<string, unknown> | null;
    errors?: { message: string; path?: unknown[]; locations?: unknown[]; extensions: Record<string, unknown> }[];
    extensions?: Record<string, unknown>;
  };
}

export async function startEdge(overrides: Partial<HttpOptions> = {}): Promise<TestEdge> {
  const world = new World();
  const tokens = new Map<string, Actor>([['secret-token', ADMIN]]);
  const logged: string[] = [];
  const awaited = new Map<string, (line: string) => void>();
  const write = (line: string): void => {
    logged.push(line);
    for (const [part, resolve] of awaited) if (line.includes(part)) resolve(line);
  };
  const reasons: string[] = [];
  const registry = new Registry();
  const log = pino({ level: 'trace' }, { write });
  const server = await startHttp({
    host: '127.0.0.1',
    port: 0,
    schema: testSchema(),
    costOf: (_schema, _document, _operationName, variables) => (Number(variables['first']) || 0) * 100 + 1,
    toGraphQLError: (error, requestId) => toGraphQLError(error, requestId, log),
    authenticate: async (token) => tokens.get(token ?? '') ?? { kind: 'anonymous' },
    contextFor: (caller, signal): TestContext => ({ ...caller, signal, world }),
    programs: [
      {
        path: '/hostd',
        schema: hostSchema(),
        contextFor: async (params) => {
          if (params['authorization'] === 'Bearer outage') throw Object.assign(new Error('no database'), { errno: 1 });
          if (params['authorization'] !== 'Bearer host')
            throw new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'Who are you?' });
          return { name: 'host-1' };
        },
      },
    ],
    ready: async () => reasons,
    log,
    metrics: registry,
    ...overrides,
  });
  const post: TestEdge['post'] = async (body, headers = {}) => {
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { authorization: 'Bearer secret-token', 'content-type': 'application/json', ...headers },
      body: body as string,
    });
    return { status: response.status, headers: response.headers, body: (await response.json()) as TestAnswer['body'] };
  };
  return {
    server,
    world,
    tokens,
    logged,
    reasons,
    registry,
    post,
    ask: (query, variables, headers) => post(JSON.stringify({ query, variables }), headers),
    metric: async (name) => {
      const found = (await registry.getSingleMetric(name)?.get())?.values ?? [];
      return found.reduce((sum, { value }) => sum + value, 0);
    },
    nextLog: (part) => new Promise((resolve) => awaited.set(part, resolve)),
    [Symbol.asyncDispose]: () => server.close(),
  };
}

/** A schema whose database is away. */
export function outageSchema(): GraphQLSchema {
  const schema = buildSchema('type Query { strict: String! loose: String hello: String! }');
  const fields = schema.getQueryType()!.getFields();
  const outage = async (): Promise<never> => {
    throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', errno: -111 });
  };
  fields['strict']!.resolve = outage;
  fields['loose']!.resolve = outage;
  fields['hello']!.resolve = () => 'hello';
  return schema;
}

function hostSchema(): GraphQLSchema {
  const schema = buildSchema(
    'type Query { me: String! } type Mutation { report(list: [Int!]!): Int! } type Subscription { commands: Int! }',
  );
  schema.getQueryType()!.getFields()['me']!.resolve = (_source, _arguments, context: { name: string }) => context.name;
  schema.getMutationType()!.getFields()['report']!.resolve = (_source, { list }) => list.length;
  schema.getSubscriptionType()!.getFields()['commands']!.subscribe = async function* () {
    yield { commands: 7 };
  };
  return schema;
}

interface Message {
  type: string;
  id?: string;
  payload?: unknown;
}

/** A bare client of graphql-transport-ws, which shows every message and close code. */
export class TestSocket implements AsyncDisposable {
  readonly socket: WebSocket;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly #inbox: Message[] = [];
  #wake: (() => void) | undefined;
  #isClosed = false;

  constructor(url: string, path = '/graphql', headers: Record<string, string> = {}) {
    this.socket = new WebSocket(`${url.replace('http', 'ws')}${path}`, 'graphql-transport-ws', {
      headers,
      perMessageDeflate: false,
    });
    this.socket.on('message', (data) => {
      this.#inbox.push(JSON.parse(String(data)) as Message);
      this.#wake?.();
    });
    this.closed = new Promise((resolve) => {
      this.socket.on('close', (code, reason) => {
        this.#isClosed = true;
        this.#wake?.();
        resolve({ code, reason: String(reason) });
      });
    });
    // What fails shows as its close, or as `unexpected-response` to those who wait for it.
    this.socket.on('error', () => undefined);
  }

  async open(): Promise<this> {
    if (this.socket.readyState === WebSocket.CONNECTING)
      await new Promise((resolve, reject) => this.socket.once('open', resolve).once('error', reject));
    return this;
  }

  /** Opens, says who it is, and waits until it is known. */
  async signIn(payload: unknown = { authorization: 'Bearer secret-token' }): Promise<this> {
    await this.open();
    this.send({ type: 'connection_init', payload });
    const message = await this.receive();
    if (message.type !== 'connection_ack') throw new Error(`expected an ack, got ${JSON.stringify(message)}`);
    return this;
  }

  send(message: unknown): void {
    this.socket.send(JSON.stringify(message));
  }

  subscribe(id: string, query: string, variables?: Record<string, unknown>): void {
    this.send({ id, type: 'subscribe', payload: { query, variables } });
  }

  async receive(): Promise<Message> {
    while (this.#inbox.length === 0) {
      if (this.#isClosed) throw new Error('the socket was closed');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#inbox.shift()!;
  }

  /** The next payload, as `data`. */
  async next(): Promise<Record<string, unknown>> {
    const message = await this.receive();
    if (message.type !== 'next') throw new Error(`expected a payload, got ${JSON.stringify(message)}`);
    return (message.payload as { data: Record<string, unknown> }).data;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.terminate();
    await this.closed;
  }
}
