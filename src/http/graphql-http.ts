import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ExecutionResult } from 'graphql';
import type { Actor } from '../domain/authorize.ts';
import { readJson } from './body.ts';
import { type Call, runBounded, statusOfResult } from './call.ts';
import { type Edge, headerToken, identify } from './edge.ts';
import { type GraphQLParams, readParams } from './execute.ts';
import { acceptedType, isJson, type MediaType } from './media-type.ts';
import { corsHeaders, isAllowedOrigin } from './origin.ts';
import { malformed, Refusal, retryAfter } from './refusal.ts';
import type { YogaHandler } from './yoga.ts';

/** What goes out: the body's text is JSON. */
interface Answer {
  status: number;
  headers: Record<string, string>;
  result: ExecutionResult;
}

/**
 * Answers `/graphql`.
 *
 * A POST of JSON, which is nearly every request, is read and answered here; GET and event streams go through Yoga. Both
 * go through the same pipeline, so they check and answer alike.
 */
export function graphqlHandler(
  edge: Edge,
): (request: IncomingMessage, response: ServerResponse, call: Call) => Promise<void> {
  let yoga: Promise<YogaHandler> | undefined;
  // Only GET and event streams need it; it takes a tenth of the memory of an idle process.
  const loadYoga = (): Promise<YogaHandler> => {
    yoga ??= import('./yoga.ts').then(({ yogaHandler }) => yogaHandler(edge));
    return yoga;
  };
  return async (request, response, call) => {
    const cors = corsHeaders(request, edge.origins);
    let mediaType: MediaType = 'application/json';
    let answer: Answer;
    try {
      if (request.method === 'OPTIONS' && cors['access-control-allow-origin']) {
        response.writeHead(204, cors).end();
        return;
      }
      call.actor = await admit(edge, request, call.requestId);
      mediaType = negotiate(request);
      if (request.method === 'GET' || mediaType === 'text/event-stream') {
        for (const [name, value] of Object.entries(cors)) response.setHeader(name, value);
        await (await loadYoga())(request, response, { call, actor: call.actor, mediaType });
        return;
      }
      const params = readParams(await readJson(request, edge.limits.bodyBytes));
      answer = await answerTo(edge, params, call as Call & { actor: Actor }, response);
    } catch (error) {
      if (request.errored) return;
      answer = refused(error, edge, call.requestId, mediaType);
    }
    send(response, answer, mediaType, cors);
  };
}

/** @throws Refusal */
async function admit(edge: Edge, request: IncomingMessage, requestId: string): Promise<Actor> {
  if (!isAllowedOrigin(request, edge.origins))
    throw malformed(`Pages of ${request.headers.origin} may not ask here.`, 403);
  return await identify(edge, headerToken(request), requestId);
}

/** @throws Refusal */
function negotiate(request: IncomingMessage): MediaType {
  const { method, headers } = request;
  if (method !== 'GET' && method !== 'POST') throw malformed('Send GET or POST.', 405, { allow: 'GET, POST' });
  if (method === 'POST' && !isJson(headers['content-type']))
    throw malformed('Send `content-type: application/json`, in UTF-8.', 415, { 'accept-post': 'application/json' });
  const mediaType = acceptedType(headers.accept);
  if (mediaType === null)
    throw malformed('There is `application/json`, `application/graphql-response+json` and `text/event-stream`.', 406);
  return mediaType;
}

async function answerTo(
  edge: Edge,
  params: GraphQLParams,
  call: Call & { actor: Actor },
  response: ServerResponse,
): Promise<Answer> {
  const operation = edge.pipeline.prepare(params);
  call.operation = operation;
  if (operation.node.operation === 'subscription')
    throw malformed('A subscription goes over WebSocket, or with `accept: text/event-stream`.');
  const result = await runBounded(edge, operation, call, response);
  return { status: statusOfResult(result), headers: {}, result };
}

function refused(error: unknown, edge: Edge, requestId: string, mediaType: MediaType): Answer {
  const refusal = error instanceof Refusal ? error : new Refusal([edge.pipeline.shown(error, requestId)]);
  const status = mediaType === 'application/json' ? refusal.legacyStatus : refusal.status;
  return { status, headers: refusal.headers, result: { errors: refusal.errors } };
}

function send(
  response: ServerResponse,
  { status, headers, result }: Answer,
  mediaType: MediaType,
  cors: Record<string, string>,
): void {
  const text = JSON.stringify(result);
  response
    .writeHead(status, {
      'content-type': `${mediaType === 'text/event-stream' ? 'application/json' : mediaType}; charset=utf-8`,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      ...retryAfter(status, result.errors),
      ...headers,
      ...cors,
    })
    .end(text);
}
