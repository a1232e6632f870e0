import type { IncomingMessage } from 'node:http';
import type { Logger } from 'pino';
import type { Actor } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { TrustedProxies } from './address.ts';
import type { Allowance } from './allowance.ts';
import type { Caller } from './call.ts';
import type { Pipeline } from './execute.ts';
import type { Limits } from './limits.ts';
import type { EdgeMetrics } from './metrics.ts';
import type { PublicFields } from './public-access.ts';
import { Refusal, unauthenticated } from './refusal.ts';
import type { Authenticate, Sessions } from './sessions.ts';

/** What HTTP and WebSocket have in common. */
export interface Edge {
  /** Of the public schema. */
  pipeline: Pipeline;
  limits: Limits;
  origins: readonly string[];
  proxies: TrustedProxies;
  authenticate: Authenticate;
  /** A new context for each operation and each event of a subscription: its loaders remember what they read. */
  contextFor(caller: Caller, signal: AbortSignal): object;
  allowance: Allowance;
  /** Told of each operation of an actor. */
  used(actor: Actor): void;
  publicFields: PublicFields;
  sessions: Sessions;
  metrics: EdgeMetrics;
  log: Logger;
}

const BEARER = /^Bearer +([^\s]+) *$/i;

/** The token of an `Authorization: Bearer <token>`; null: there is none. */
export const bearerToken = (authorization: unknown): string | null =>
  typeof authorization === 'string' ? (BEARER.exec(authorization)?.[1] ?? null) : null;

export const headerToken = (request: IncomingMessage): string | null => bearerToken(request.headers.authorization);

/**
 * Who asks; never anonymous.
 *
 * @throws Refusal UNAUTHENTICATED, or UNAVAILABLE when the look-up fails or takes too long
 */
export async function identify(edge: Edge, token: string | null, requestId: string): Promise<Actor> {
  if (token === null) throw unauthenticated();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(unansweredLookUp()), edge.limits.authenticateMs);
  try {
    const actor = await Promise.race([edge.authenticate(token), late.promise]);
    if (actor.kind === 'anonymous') throw unauthenticated();
    return actor;
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal([edge.pipeline.shown(error, requestId)]);
  } finally {
    clearTimeout(timer);
  }
}

const unansweredLookUp = (): VirtgraphError =>
  new VirtgraphError({ code: 'UNAVAILABLE', message: 'The database does not answer. Try again in a moment.' });
