import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { Egress } from './egress.ts';
import { knownBy } from './tls.ts';

export interface FetchLimits {
  timeoutMs: number;
  maxBytes: number;
  /** PEM: beside the usual ones. */
  caCertificates: string | null;
}

export interface FetchRequest {
  method: string;
  headers: Record<string, string>;
  body?: string | Uint8Array | null;
  signal?: AbortSignal | undefined;
}

/** The other side took too long, or sent too much. */
export class FetchLimit extends Error {}

/**
 * One request outside, at an address that was vetted, within limits of time and size. A redirect is an answer like any
 * other: it is not followed, because it could lead inside.
 *
 * @throws EgressRefused, FetchLimit, and what the network says
 */
export async function fetchOutside(
  egress: Egress,
  target: string,
  { method, headers, body, signal }: FetchRequest,
  { timeoutMs, maxBytes, caCertificates }: FetchLimits,
): Promise<Response> {
  const url = new URL(target);
  const secure = url.protocol === 'https:';
  const port = Number(url.port) || (secure ? 443 : 80);
  const late = AbortSignal.timeout(timeoutMs);
  const stop = signal ? AbortSignal.any([signal, late]) : late;
  const address = await Promise.race([egress.addressOf(url.hostname, port), aborted(stop)]);
  const options = {
    method,
    host: address,
    port,
    path: `${url.pathname}${url.search}`,
    headers: { ...headers, host: url.host },
    signal: stop,
    agent: false,
    maxHeaderSize: 16_384,
    ...knownBy(url.hostname, caCertificates),
  } as const;
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = secure ? requestHttps(options) : requestHttp(options);
      sent
        .once('response', resolve)
        .once('error', reject)
        .end(body ?? undefined);
    });
    const bytes = await readUpTo(response, maxBytes);
    return responseOf(response, bytes);
  } catch (error) {
    if (late.aborted) throw new FetchLimit(`${url.host} took longer than ${timeoutMs / 1000} s.`, { cause: error });
    throw error;
  }
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(new FetchLimit('The name was not resolved in time.')), {
      once: true,
    });
  });

async function readUpTo(response: IncomingMessage, maxBytes: number): Promise<Buffer<ArrayBuffer>> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) {
      response.destroy();
      throw new FetchLimit(`The answer is larger than ${maxBytes} bytes.`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const WITHOUT_BODY = [204, 205, 304];

function responseOf(response: IncomingMessage, bytes: Buffer<ArrayBuffer>): Response {
  const status = response.statusCode ?? 500;
  const headers = new Headers();
  for (const [name, values] of Object.entries(response.headersDistinct))
    for (const value of values ?? []) headers.append(name, value);
  return new Response(WITHOUT_BODY.includes(status) ? null : bytes, { status, headers });
}
