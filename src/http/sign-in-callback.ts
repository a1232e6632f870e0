import type { IncomingMessage, ServerResponse } from 'node:http';
import { VirtgraphError } from '../domain/errors.ts';
import type { Call } from './call.ts';
import { AnswerCookies, pendingCookie } from './cookie.ts';
import { statusOfCode } from './refusal.ts';

/**
 * @param query with its question mark
 * @param pending what the browser has kept since it began
 * @returns the session's token
 * @throws VirtgraphError
 */
export type FinishSignIn = (query: string, pending: string | null, via: Via) => Promise<{ token: string }>;
type Via = Pick<Call, 'address' | 'requestId' | 'userAgent'>;

/**
 * Leads to our own page with a session, or says why there is none. The one thing that acts on GET: a provider can send
 * people back in no other way.
 */
export async function answerSignIn(
  finish: FinishSignIn,
  request: IncomingMessage,
  response: ServerResponse,
  call: Call,
): Promise<void> {
  if (request.method !== 'GET') {
    response.writeHead(405, { allow: 'GET' }).end();
    return;
  }
  const pending = pendingCookie(request);
  const cookies = new AnswerCookies(request);
  cookies.forgetPending();
  try {
    const url = request.url ?? '';
    const { token } = await finish(url.includes('?') ? url.slice(url.indexOf('?')) : '', pending, call);
    cookies.keep(token);
    // Always to the same page: where to go is nothing that comes back from outside.
    response.writeHead(303, { location: '/', 'set-cookie': cookies.headers, 'cache-control': 'no-store' }).end();
  } catch (error) {
    if (!(error instanceof VirtgraphError)) throw error;
    const text = page(error.message);
    response
      .writeHead(statusOfCode(error.code), {
        'content-type': 'text/html; charset=utf-8',
        'content-length': Buffer.byteLength(text),
        'cache-control': 'no-store',
        'set-cookie': cookies.headers,
      })
      .end(text);
  }
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escaped = (text: string): string => text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character]!);

const page = (message: string): string =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>Not signed in</title>` +
  `<h1>Not signed in</h1><p>${escaped(message)}</p><p><a href="/">Back</a></p></html>\n`;
