import type { IncomingMessage } from 'node:http';
import { type ExecutionArgs, type ExecutionResult, GraphQLError } from 'graphql';
import { type Context, makeServer, type Server } from 'graphql-ws';
import { WebSocket } from 'ws';
import type { Actor } from '../domain/authorize.ts';
import { type Caller, callFields, runBounded, spend } from './call.ts';
import { cookieToken, saysOrigin } from './cookie.ts';
import { bearerToken, type Edge, headerToken, identify } from './edge.ts';
import { EventStream } from './event-stream.ts';
import { type Operation, readParams } from './execute.ts';
import type { FanOut } from './fan-out.ts';
import { limitExceeded } from './limits.ts';
import { codeOfError, Refusal } from './refusal.ts';
import { CLOSE, type Extra } from './socket-keeper.ts';

/** A connection to `/graphql`. */
export interface ClientExtra extends Extra {
  actor?: Actor;
  /** Of the upgrade. */
  address: string | null;
  userAgent: string | null;
  operations: number;
}

type ClientContext = Context<Record<string, unknown>, ClientExtra>;

/** What `subscribe` and `execute` get beside what graphql-ws itself reads. */
interface Arguments extends ExecutionArgs {
  operation: Operation;
  call: Caller;
  extra: ClientExtra;
  id: string;
}

/** graphql-transport-ws for clients: who asks is said once, in `connection_init` or at the upgrade. */
export function clientProtocol(edge: Edge, fanOut: FanOut): Server<ClientExtra> {
  return makeServer<Record<string, unknown>, ClientExtra>({
    connectionInitWaitTimeout: edge.limits.connectionInitMs,
    onConnect: (context) => connect(edge, context),
    onSubscribe: (context, id, payload) => admit(edge, context, id, payload),
    execute: (args) => run(edge, args as Arguments),
    subscribe: (args) => subscribe(edge, fanOut, args as Arguments),
  });
}

async function connect(edge: Edge, { connectionParams, extra, subscriptions }: ClientContext): Promise<boolean> {
  const { socket, request, requestId } = extra;
  const token = tokenOf(connectionParams) ?? headerToken(request) ?? browserToken(request);
  extra.isBusy = () => Object.keys(subscriptions).length > 0;
  try {
    extra.actor = await identify(edge, token, requestId);
  } catch (error) {
    if (!isOutage(error)) return false;
    socket.close(CLOSE.tryAgainLater, 'The token cannot be looked up now');
    return false;
  }
  if (socket.readyState !== WebSocket.OPEN) return false;
  if (edge.sessions.openOf(extra.actor) >= edge.limits.socketsPerUser) {
    socket.close(CLOSE.tryAgainLater, `You have ${edge.limits.socketsPerUser} connections open`);
    return false;
  }
  const forget = edge.sessions.add({
    token: token!,
    actor: extra.actor,
    revoke: () => socket.close(CLOSE.forbidden, 'Forbidden'),
  });
  socket.once('close', forget);
  return true;
}

/** The cookie of a page whose origin was found to be allowed before the upgrade. */
const browserToken = (request: IncomingMessage): string | null => (saysOrigin(request) ? cookieToken(request) : null);

/** `{ authorization }`, or `{ headers: { authorization } }` as some clients have it. */
function tokenOf(params: Record<string, unknown> | undefined): string | null {
  const headers = params?.['headers'] as Record<string, unknown> | undefined;
  return bearerToken(params?.['authorization'] ?? params?.['Authorization'] ?? headers?.['authorization']);
}

const isOutage = (error: unknown): boolean =>
  error instanceof Refusal && error.errors.some((shown) => codeOfError(shown) !== 'UNAUTHENTICATED');

function admit(
  edge: Edge,
  { extra, subscriptions }: ClientContext,
  id: string,
  payload: unknown,
): Arguments | GraphQLError[] {
  const { operationsPerSocket } = edge.limits;
  if (Object.keys(subscriptions).length > operationsPerSocket)
    return [limitExceeded(`A connection may have ${operationsPerSocket} operations open at a time.`)];
  try {
    const operation = edge.pipeline.prepare(readParams(payload));
    const { document, params } = operation;
    return {
      schema: edge.pipeline.schema,
      document,
      operationName: params.operationName,
      operation,
      call: {
        requestId: `${extra.requestId}.${++extra.operations}`,
        actor: extra.actor!,
        address: extra.address,
        userAgent: extra.userAgent,
        cookies: null,
      },
      extra,
      id,
    };
  } catch (error) {
    if (error instanceof Refusal) return [...error.errors];
    return [edge.pipeline.shown(error, extra.requestId)];
  }
}

async function run(edge: Edge, { operation, call, extra }: Arguments): Promise<ExecutionResult> {
  const began = performance.now();
  const result = await runBounded(edge, operation, call, extra.socket);
  edge.log.info({ ...callFields({ ...call, operation }), ms: since(began) }, 'graphql over websocket');
  return result;
}

async function subscribe(
  edge: Edge,
  fanOut: FanOut,
  args: Arguments,
): Promise<AsyncIterableIterator<ExecutionResult> | ExecutionResult> {
  const { operation, call, extra, id } = args;
  edge.log.info(callFields({ ...call, operation }), 'subscription over websocket');
  const rate = spend(edge, call.actor, operation);
  if (rate instanceof GraphQLError) return { errors: [rate] };
  const shareable = fanOut.shareable(operation);
  if (shareable) return await fanOut.join(operation, shareable, call, extra.socket, id);
  const { pipeline, metrics, contextFor } = edge;
  const stop = new AbortController();
  const context = (): object => contextFor(call, stop.signal);
  const source = await pipeline.open(operation, context(), call.requestId);
  if (!(Symbol.asyncIterator in source)) return source;
  metrics.subscriptions.inc();
  return new EventStream(source, {
    run: (event) => {
      metrics.deliveries.inc();
      return pipeline.execute(operation, context(), call.requestId, event);
    },
    onEnd: () => {
      metrics.subscriptions.dec();
      stop.abort();
    },
    log: edge.log,
  });
}

const since = (began: number): number => Math.round((performance.now() - began) * 10) / 10;

export const clientExtra = (
  socket: WebSocket,
  request: IncomingMessage,
  { requestId, address }: Pick<Caller, 'requestId' | 'address'>,
): ClientExtra => ({
  socket,
  request,
  requestId,
  address,
  userAgent: request.headers['user-agent'] ?? null,
  operations: 0,
  isBusy: () => false,
});
