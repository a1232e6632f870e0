import type { ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';

export function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const text = JSON.stringify(body);
  response
    .writeHead(status, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      ...headers,
    })
    .end(text);
}

/** The process lives and its event loop turns. Says nothing of the database: restarting would not heal that. */
export const sendHealth = (response: ServerResponse): void => sendJson(response, 200, { status: 'ok' });

/** Whether requests may be sent here. @param ready the reasons why not; rejecting is one too */
export async function sendReadiness(response: ServerResponse, ready: () => Promise<string[]>): Promise<void> {
  const reasons = await ready().catch((error: unknown) => [`The readiness check failed: ${(error as Error).message}`]);
  if (reasons.length === 0) sendJson(response, 200, { status: 'ready', reasons });
  else sendJson(response, 503, { status: 'not ready', reasons }, { 'retry-after': '1' });
}

export async function sendMetrics(response: ServerResponse, registry: Registry): Promise<void> {
  const text = await registry.metrics();
  response.writeHead(200, { 'content-type': registry.contentType, 'cache-control': 'no-store' }).end(text);
}
