import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { GraphQLSchema } from 'graphql';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Actor } from '../domain/authorize.ts';
import { SIGN_IN_CALLBACK } from '../domain/session.ts';
import { addressOf, type TrustedProxies, trustedProxies } from './address.ts';
import { Allowance } from './allowance.ts';
import { type Call, type Caller, callFields } from './call.ts';
import { type Download, sendDownload } from './download.ts';
import type { Edge } from './edge.ts';
import { type CostOf, Pipeline } from './execute.ts';
import { FanOut } from './fan-out.ts';
import { GraphiqlPage } from './graphiql.ts';
import { graphqlHandler } from './graphql-http.ts';
import { sendHealth, sendJson, sendMetrics, sendReadiness } from './health.ts';
import { KnownTokens } from './known-tokens.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import { listen } from './listen.ts';
import { edgeMetrics } from './metrics.ts';
import { isAllowedOrigin } from './origin.ts';
import { type ProgramContextFor, type ProgramExtra, programExtra, programProtocol } from './program-sockets.ts';
import type { PublicFields } from './public-access.ts';
import type { ToGraphQLError } from './refusal.ts';
import { requestIdOf } from './request-id.ts';
import { listenSecurely, type SecureListener, type SecureOptions } from './secure-listener.ts';
import { type Authenticate, Sessions } from './sessions.ts';
import { answerSignIn, type FinishSignIn } from './sign-in-callback.ts';
import { SocketKeeper } from './socket-keeper.ts';
import { type ClientExtra, clientExtra, clientProtocol } from './sockets.ts';

export interface HttpOptions {
  host: string;
  /** 0: any that is free. */
  port: number;
  /** The public schema, at `/graphql`. */
  schema: GraphQLSchema;
  costOf: CostOf;
  toGraphQLError: ToGraphQLError;
  /** Anonymous: the token is not known. Rejecting: it cannot be looked up now. */
  authenticate: Authenticate;
  /** Told of each operation: a token that is used has not been forgotten. */
  used?(actor: Actor): void;
  /** What may be asked without a token, by POST; default: nothing. */
  publicFields?: PublicFields;
  /** A new one per operation, and per event of a subscription. The signal: nobody waits for it any more. */
  contextFor(caller: Caller, signal: AbortSignal): object;
  /** What our own programs speak, over WebSocket alone. */
  programs: Program[];
  downloads?: Download[];
  /** Ends a sign-in on a provider's page; without it there is no such path. */
  finishSignIn?: FinishSignIn;
  /** The same by TLS, on a port of its own. */
  secure?: SecureOptions & { programs: Program[] };
  /** Why requests should not be sent here; empty: they may. */
  ready(): Promise<string[]>;
  log: Logger;
  /** Others may add theirs. */
  metrics: Registry;
  limits?: Partial<Limits>;
  /** Web origins that may ask beside our own, like `https://console.example.com`. */
  origins?: readonly string[];
  /** Networks of reverse proxies whose `X-Forwarded-For` counts, like `10.0.0.0/8`; default: of nobody. */
  trustedProxies?: readonly string[];
}

/** A schema for programs, at a path of its own, for example `/hostd`. */
export interface Program {
  path: string;
  schema: GraphQLSchema;
  contextFor: ProgramContextFor;
}

export interface HttpServer {
  /** `http://host:port` */
  url: string;
  port: number;
  secure: SecureListener | null;
  /** What some actors may do has changed: what they have open is closed before anything else is delivered to it. */
  revoke(affected: (actor: Actor) => boolean): void;
  /** Takes no more, closes WebSockets with 1001, lets requests in flight end, and frees everything. */
  close(): Promise<void>;
}

/** Serves the graph, schemas of our own programs, GraphiQL, health and metrics on one port; the rest by TLS. */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const tokens = new KnownTokens(options.authenticate, limits.rememberTokenMs);
  const edge = edgeOf(options, limits, tokens.authenticate);
  const fanOut = new FanOut(edge);
  const { metrics, log } = edge;
  const clients = new SocketKeeper<ClientExtra>({
    path: '/graphql',
    maxPayload: limits.messageBytes,
    protocol: clientProtocol(edge, fanOut),
    limits,
    metrics,
    log,
  });
  const keepersOf = (programs: readonly Program[]): Keepers =>
    new Map(programs.map((program) => [program.path, keeperOf(program, edge, options)]));
  const programs = keepersOf(options.programs);
  const securePrograms = keepersOf(options.secure?.programs ?? []);

  const server = createServer({
    requestTimeout: limits.requestMs,
    headersTimeout: Math.min(10_000, limits.requestMs),
    // Longer than that of usual balancers, so that theirs ends a connection and not a request on its way.
    keepAliveTimeout: 65_000,
  });
  server.on('request', requestListener(server, edge, options));
  server.on('upgrade', upgradeListener(edge, clients, programs));
  const { authority, port } = await listen(server, options.host, options.port);
  const secure = options.secure
    ? await listenSecurely(options.secure, limits, log, upgradeListener(edge, null, securePrograms))
    : null;

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const timer = setTimeout(() => server.closeAllConnections(), limits.drainMs);
    const secureClosed = secure?.close(limits.drainMs);
    const keepers = [clients, ...programs.values(), ...securePrograms.values()];
    const sockets = Promise.all(keepers.map((keeper) => keeper.close()));
    edge.sessions.endAll();
    fanOut.stop();
    await sockets;
    await closed;
    await secureClosed;
    clearTimeout(timer);
  };
  return {
    url: `http://${authority}`,
    port,
    secure,
    revoke(affected) {
      tokens.forget();
      edge.sessions.revoke(affected);
    },
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

function edgeOf(options: HttpOptions, limits: Limits, remembered: Authenticate): Edge {
  const { schema, costOf, toGraphQLError, authenticate, log } = options;
  return {
    pipeline: new Pipeline({ schema, limits, costOf, toGraphQLError, log }),
    limits,
    origins: options.origins ?? [],
    proxies: proxiesOf(options.trustedProxies ?? []),
    authenticate: remembered,
    contextFor: options.contextFor,
    allowance: new Allowance(limits.costPerMinute),
    used: options.used ?? (() => undefined),
    publicFields: options.publicFields ?? {},
    sessions: new Sessions(authenticate, limits, log),
    metrics: edgeMetrics(options.metrics),
    log,
  };
}

/** @throws Error for what is no network: a proxy that is left out would be taken for everybody */
function proxiesOf(networks: readonly string[]): TrustedProxies {
  const { proxies, wrong } = trustedProxies(networks);
  if (wrong.length > 0) throw new Error(`Not an address or a network: ${wrong.join(', ')}`);
  return proxies;
}

function keeperOf(
  { path, schema, contextFor }: Program,
  edge: Edge,
  { toGraphQLError }: HttpOptions,
): SocketKeeper<ProgramExtra> {
  const { limits, metrics, log } = edge;
  const pipeline = new Pipeline({
    schema,
    // A host reports everything that it runs in one message.
    limits: { ...limits, variableValues: 1_000_000 },
    costOf: null,
    toGraphQLError,
    log,
  });
  const protocol = programProtocol(pipeline, limits, contextFor, log);
  return new SocketKeeper<ProgramExtra>({ path, maxPayload: limits.hostMessageBytes, protocol, limits, metrics, log });
}

/** For everything that is not a page of our own, which says for itself what it may load. */
const SECURITY_HEADERS = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
};

const ROUTES = [SIGN_IN_CALLBACK, '/graphql', '/graphiql', '/healthz', '/readyz', '/metrics', '/audit.jsonl', '/'];

function requestListener(
  server: Server,
  edge: Edge,
  options: HttpOptions,
): (request: IncomingMessage, response: ServerResponse) => void {
  const graphql = graphqlHandler(edge);
  const graphiql = new GraphiqlPage();
  const downloads = new Map((options.downloads ?? []).map((download) => [download.path, download]));
  const route = async (path: string, request: IncomingMessage, response: ServerResponse, call: Call): Promise<void> => {
    if (path === '/graphql') return await graphql(request, response, call);
    if (path === '/graphiql' || path.startsWith('/graphiql/')) return await graphiql.send(path, request, response);
    if (path === '/healthz') return sendHealth(response);
    if (path === '/readyz') return await sendReadiness(response, options.ready);
    if (path === '/metrics') return await sendMetrics(response, edge.metrics.registry);
    const download = downloads.get(path);
    if (download) return await sendDownload(edge, download, request, response, call);
    if (path === SIGN_IN_CALLBACK && options.finishSignIn)
      return await answerSignIn(options.finishSignIn, request, response, call);
    if (path === '/') {
      response.writeHead(302, { location: '/graphiql' }).end();
      return;
    }
    sendJson(response, 404, { error: { code: 'NOT_FOUND', message: 'There is nothing at this path.' } });
  };

  return (request, response) => {
    const began = performance.now();
    const call: Call = {
      requestId: requestIdOf(request),
      address: addressOf(request, edge.proxies),
      userAgent: request.headers['user-agent'] ?? null,
      cookies: null,
    };
    const path = pathOf(request);
    response.setHeader('x-request-id', call.requestId);
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
    response.once('close', () => {
      tell(edge, call, path, request, response, performance.now() - began);
      // While closing, a connection ends with its answer instead of staying for the next request.
      if (!server.listening) request.socket.destroySoon();
    });
    route(path, request, response, call).catch((error: unknown) => {
      edge.log.error({ requestId: call.requestId, err: error }, 'a request could not be answered');
      if (response.headersSent) response.destroy();
      else
        sendJson(response, 500, {
          error: { code: 'INTERNAL', message: 'A fault of Virtgraph.', requestId: call.requestId },
        });
    });
  };
}

/** One line and one sample per request; never the query string, a header or a body, which may hold secrets. */
function tell(
  edge: Edge,
  call: Call,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
  ms: number,
): void {
  const route = ROUTES.includes(path) ? path : path.startsWith('/graphiql/') ? '/graphiql' : 'other';
  const status = response.writableFinished ? response.statusCode : 499;
  edge.metrics.requests.inc({ route, status: String(status) });
  edge.metrics.duration.observe({ route }, ms / 1000);
  edge.log.info(
    { ...callFields(call), method: request.method, route, status, ms: Math.round(ms * 10) / 10 },
    'request',
  );
}

type Keepers = Map<string, SocketKeeper<ProgramExtra>>;

/** @param clients null: clients are not served here */
function upgradeListener(
  edge: Edge,
  clients: SocketKeeper<ClientExtra> | null,
  programs: Keepers,
): (request: IncomingMessage, transport: Duplex, head: Buffer) => void {
  return (request, transport, head) => {
    const requestId = requestIdOf(request);
    const address = addressOf(request, edge.proxies);
    transport.on('error', (error) => edge.log.info({ err: error, requestId }, 'WebSocket transport error'));
    const path = pathOf(request);
    const program = programs.get(path);
    const keeper = path === '/graphql' ? clients : program;
    if (!keeper) return refuseUpgrade(transport, '404 Not Found');
    if (!isAllowedOrigin(request, edge.origins)) return refuseUpgrade(transport, '403 Forbidden');
    if (keeper.isFull) return refuseUpgrade(transport, '503 Service Unavailable');
    if (program) program.accept(request, transport, head, (socket) => programExtra(socket, request, requestId));
    else clients?.accept(request, transport, head, (socket) => clientExtra(socket, request, { requestId, address }));
  };
}

/** Cut once it is told: the other side may never close its half, and no time-out looks after an upgrade. */
function refuseUpgrade(transport: Duplex, status: string): void {
  transport.once('finish', () => transport.destroy());
  transport.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

const pathOf = (request: IncomingMessage): string => (request.url ?? '/').split('?', 1)[0]!;
