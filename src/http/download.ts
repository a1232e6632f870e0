import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { GraphQLError } from 'graphql';
import type { Actor } from '../domain/authorize.ts';
import { type Call, spend } from './call.ts';
import { type Edge, headerToken, identify } from './edge.ts';
import { sendJson } from './health.ts';
import { corsHeaders, isAllowedOrigin } from './origin.ts';
import { malformed, Refusal, retryAfter, unauthenticated } from './refusal.ts';

/** Something long that is read from beginning to end, at a path of its own. */
export interface Download {
  path: string;
  mediaType: string;
  fileName: string;
  /** Of the caller's allowance. */
  cost: number;
  /** @throws VirtgraphError before anything is read, or with the first value */
  open(actor: Actor, query: URLSearchParams): AsyncGenerator<string>;
}

/** Answers a GET with the same tokens, origins and allowance as `/graphql`; reads no faster than the client takes it. */
export async function sendDownload(
  edge: Edge,
  download: Download,
  request: IncomingMessage,
  response: ServerResponse,
  call: Call,
): Promise<void> {
  let text: AsyncGenerator<string> | undefined;
  let forget: (() => void) | undefined;
  try {
    if (request.method !== 'GET') throw malformed('Send GET.', 405, { allow: 'GET' });
    if (!isAllowedOrigin(request, edge.origins))
      throw malformed(`Pages of ${request.headers.origin} may not ask here.`, 403);
    const token = headerToken(request);
    const actor = await identify(edge, token, call.requestId);
    call.actor = actor;
    // From before anything is read: nothing that came after a revocation is sent.
    const stop = new AbortController();
    forget = edge.sessions.add({ token: token!, actor, revoke: () => stop.abort() });
    const rate = spend(edge, actor, download);
    if (rate instanceof GraphQLError) throw new Refusal([rate]);
    text = download.open(actor, new URL(request.url!, 'http://localhost').searchParams);
    // Before the status is sent: what fails at once is told by it.
    const first = await text.next();
    if (stop.signal.aborted) throw unauthenticated();
    response.writeHead(200, {
      'content-type': download.mediaType,
      'content-disposition': `attachment; filename="${download.fileName}"`,
      'cache-control': 'no-store',
      ...corsHeaders(request, edge.origins),
    });
    await send(response, first, text, stop.signal);
  } catch (error) {
    await text?.return(undefined);
    // A client that went away is no fault; who gets a part must not take it for the whole.
    if (response.destroyed) return;
    if (!response.headersSent) return refuse(edge, error, response, call.requestId);
    edge.log.warn({ err: error, requestId: call.requestId }, 'a download was cut off');
    response.destroy();
  } finally {
    forget?.();
  }
}

async function send(
  response: ServerResponse,
  first: IteratorResult<string, unknown>,
  rest: AsyncGenerator<string>,
  signal: AbortSignal,
): Promise<void> {
  async function* all(): AsyncGenerator<string> {
    if (first.done) return;
    yield first.value;
    yield* rest;
  }
  // One piece ahead of the client, no more.
  await pipeline(Readable.from(all(), { highWaterMark: 1 }), response, { signal });
}

function refuse(edge: Edge, error: unknown, response: ServerResponse, requestId: string): void {
  const refusal = error instanceof Refusal ? error : new Refusal([edge.pipeline.shown(error, requestId)]);
  const { message, extensions } = refusal.errors[0]!;
  const headers = { ...retryAfter(refusal.status, refusal.errors), ...refusal.headers };
  sendJson(response, refusal.status, { error: { code: extensions['code'], message, requestId } }, headers);
}
