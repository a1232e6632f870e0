import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ExecutionResult, GraphQLError } from 'graphql';
import { createYoga, type Plugin } from 'graphql-yoga';
import type { Actor } from '../domain/authorize.ts';
import { type Call, runBounded, spend, statusOfResult } from './call.ts';
import { type Edge, identify } from './edge.ts';
import { EventStream } from './event-stream.ts';
import { type Operation, readParams } from './execute.ts';
import type { MediaType } from './media-type.ts';
import { malformed, Refusal, retryAfter } from './refusal.ts';

/** What is known of a request before Yoga reads it. */
interface Admitted {
  call: Call;
  actor: Actor;
  token: string;
  mediaType: MediaType;
}

export type YogaHandler = (request: IncomingMessage, response: ServerResponse, admitted: Admitted) => Promise<void>;

interface ServerContext {
  admitted: Admitted;
  res: ServerResponse;
}

/** Yoga reads the parameters of GET and writes event streams; what is between is the edge's own pipeline. */
export function yogaHandler(edge: Edge): YogaHandler {
  const plugin: Plugin<object, ServerContext> = {
    async onParams({ params, request, context, setResult }) {
      const { admitted, res } = context as unknown as ServerContext;
      setResult((await resultOf(edge, params, request.method, admitted, res)) as ExecutionResult);
    },
  };
  const yoga = createYoga<ServerContext>({
    schema: edge.pipeline.schema,
    plugins: [plugin],
    logging: false,
    landingPage: false,
    graphiql: false,
    batching: false,
    multipart: false,
    cors: false,
    parserAndValidationCache: false,
    maxRequestBodySize: edge.limits.bodyBytes,
    maskedErrors: { maskError: (error) => typed(error) },
  });
  return async (request, response, admitted) => {
    response.setHeader('cache-control', 'no-store');
    await yoga(request, response, { admitted, res: response });
  };
}

async function resultOf(
  edge: Edge,
  params: unknown,
  method: string,
  admitted: Admitted,
  response: ServerResponse,
): Promise<unknown> {
  const { call, mediaType } = admitted;
  try {
    // Whoever sends slowly may be somebody else by now, or nobody.
    const actor = await identify(edge, admitted.token, call.requestId);
    const operation = edge.pipeline.prepare(readParams(params));
    call.operation = operation;
    if (operation.node.operation === 'mutation' && method === 'GET')
      throw malformed('A mutation goes by POST: nothing acts on GET.', 405, { allow: 'POST' });
    if (operation.node.operation === 'subscription')
      return await streamOf(edge, operation, { ...admitted, actor }, response);
    const result = await runBounded(edge, operation, { ...call, actor }, response);
    return withHttp(result, statusOfResult(result), {});
  } catch (error) {
    const refusal = error instanceof Refusal ? error : new Refusal([edge.pipeline.shown(error, call.requestId)]);
    const status = mediaType === 'application/json' ? refusal.legacyStatus : refusal.status;
    return withHttp({ errors: refusal.errors }, status, refusal.headers);
  }
}

const withHttp = (result: ExecutionResult, status: number, headers: Record<string, string>): ExecutionResult => ({
  ...result,
  extensions: {
    ...result.extensions,
    http: { status, headers: { ...headers, ...retryAfter(status, result.errors) } },
  },
});

/** A subscription as an event stream, which ends with its caller, its token and the server. */
async function streamOf(
  edge: Edge,
  operation: Operation,
  { call, actor, token, mediaType }: Admitted,
  response: ServerResponse,
): Promise<unknown> {
  if (mediaType !== 'text/event-stream')
    throw malformed('A subscription goes over WebSocket, or with `accept: text/event-stream`.');
  const { pipeline, sessions, metrics, log } = edge;
  const stop = new AbortController();
  const rate = spend(edge, actor, operation);
  if (rate instanceof GraphQLError) return withHttp({ errors: [rate] }, statusOfResult({ errors: [rate] }), {});
  const context = (): object => edge.contextFor({ ...call, actor }, stop.signal);
  let isOver = false;
  let stream: EventStream | undefined;
  const end = (): void => {
    isOver = true;
    void stream?.return();
  };
  // Before anything is opened: what is revoked meanwhile would be heard of by nobody.
  const forget = sessions.add({ token, actor, revoke: end });
  response.once('close', () => {
    forget();
    end();
  });
  const source = await pipeline.open(operation, context(), call.requestId);
  if (!(Symbol.asyncIterator in source)) return withHttp(source, statusOfResult(source), {});
  metrics.subscriptions.inc();
  stream = new EventStream(source, {
    run: (event) => {
      metrics.deliveries.inc();
      return pipeline.execute(operation, context(), call.requestId, event);
    },
    onEnd: () => {
      metrics.subscriptions.dec();
      stop.abort();
    },
    log,
  });
  if (isOver) end();
  return stream;
}

const CODES: Record<string, string> = { REQUEST_ENTITY_TOO_LARGE: 'LIMIT_EXCEEDED' };

/** Yoga's own errors, which are all about the form of a request, in our words. */
function typed(error: unknown): GraphQLError {
  const http = error instanceof GraphQLError ? error.extensions['http'] : undefined;
  const code = error instanceof GraphQLError ? CODES[String(error.extensions['code'])] : undefined;
  return new GraphQLError(error instanceof Error ? error.message : 'The request is malformed.', {
    extensions: { code: code ?? 'INVALID_INPUT', http: http ?? { status: 400 } },
  });
}
