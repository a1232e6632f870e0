import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ExecutionResult } from 'graphql';
import type { Actor } from '../domain/authorize.ts';
import { readJson } from './body.ts';
import { type Call, type Caller, runBounded, statusOfResult } from './call.ts';
import { AnswerCookies } from './cookie.ts';
import { type Edge, identify } from './edge.ts';
import { type Operation, readParams } from './execute.ts';
import { type Identity, identityOf } from './identity.ts';
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
      const identity = await admit(edge, request, call.requestId);
      call.actor = identity.actor;
      if (identity.token === null && !isPostOfJson(request)) throw identity.why;
      mediaType = negotiate(request);
      if (request.method === 'GET' || mediaType === 'text/event-stream') {
        if (identity.token === null) throw identity.why;
        for (const [name, value] of Object.entries(cors)) response.setHeader(name, value);
        await (await loadYoga())(request, response, { ...identity, call, mediaType });
        return;
      }
      call.cookies = new AnswerCookies(request);
      const { operation, actor } = await operationOf(edge, identity, request, call.requestId);
      call.operation = operation;
      answer = await answerTo(edge, operation, { ...call, actor }, response);
    } catch (error) {
      if (request.errored) return;
      answer = refused(error, edge, call.requestId, mediaType);
    }
    const cookies = call.cookies?.headers ?? [];
    send(response, answer, mediaType, { ...cors, ...(cookies.length > 0 ? { 'set-cookie': cookies } : {}) });
  };
}

/** @throws Refusal */
async function admit(edge: Edge, request: IncomingMessage, requestId: string): Promise<Identity> {
  if (!isAllowedOrigin(request, edge.origins))
    throw malformed(`Pages of ${request.headers.origin} may not ask here.`, 403);
  return await identityOf(edge, request, requestId);
}

const isPostOfJson = ({ method, headers }: IncomingMessage): boolean =>
  method === 'POST' && isJson(headers['content-type']);

/** What is asked, and by whom; for who has shown no token only what is public. @throws Refusal */
async function operationOf(
  edge: Edge,
  identity: Identity,
  request: IncomingMessage,
  requestId: string,
): Promise<{ operation: Operation; actor: Actor }> {
  const { limits, pipeline, publicFields } = edge;
  if (identity.token === null) {
    const params = readParams(await readJson(request, limits.publicBodyBytes));
    return { operation: pipeline.preparePublic(params, publicFields, identity.why), actor: identity.actor };
  }
  const params = readParams(await readJson(request, limits.bodyBytes));
  // Whoever sends slowly may be somebody else by now, or nobody.
  const actor = await identify(edge, identity.token, requestId);
  return { operation: pipeline.prepare(params), actor };
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

async function answerTo(edge: Edge, operation: Operation, caller: Caller, response: ServerResponse): Promise<Answer> {
  if (operation.node.operation === 'subscription')
    throw malformed('A subscription goes over WebSocket, or with `accept: text/event-stream`.');
  const result = await runBounded(edge, operation, caller, response);
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
  more: Record<string, string | string[]>,
): void {
  const text = JSON.stringify(result);
  response
    .writeHead(status, {
      'content-type': `${mediaType === 'text/event-stream' ? 'application/json' : mediaType}; charset=utf-8`,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      ...retryAfter(status, result.errors),
      ...headers,
      ...more,
    })
    .end(text);
}
