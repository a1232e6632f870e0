import type { EventEmitter } from 'node:events';
import { type ExecutionResult, GraphQLError } from 'graphql';
import { type Actor, actorName } from '../domain/authorize.ts';
import type { RateLimit } from './allowance.ts';
import type { AnswerCookies } from './cookie.ts';
import type { Edge } from './edge.ts';
import type { Operation } from './execute.ts';
import { codeOfError, statusOfCode, timedOut } from './refusal.ts';

/** Who asks, from where. */
export interface Caller {
  actor: Actor;
  requestId: string;
  /** Of the client, as far as those tell who are trusted; null: it was gone before it could be asked. */
  address: string | null;
  /** What the client says it is. */
  userAgent: string | null;
  /** What the answer sets; null where it can set none. */
  cookies: AnswerCookies | null;
}

/** A request on its way, as far as its log line tells of it. */
export interface Call extends Omit<Caller, 'actor'> {
  actor?: Actor;
  operation?: Operation;
}

/** Pays for what is asked. @returns what the actor has left, or why it can't be paid for; null: nobody counts */
export function spend(edge: Edge, actor: Actor, { cost }: { cost: number | null }): RateLimit | GraphQLError | null {
  edge.used(actor);
  return edge.allowance.spend(actor, cost ?? 1);
}

/**
 * Runs a query or mutation until it ends or its time is over. The signal of its context is aborted when the time is
 * over or `connection`, a response or a socket, closes. Never throws.
 */
export async function runBounded(
  edge: Edge,
  operation: Operation,
  caller: Caller,
  connection: EventEmitter,
): Promise<ExecutionResult> {
  const { requestId, actor } = caller;
  const rate = spend(edge, actor, operation);
  if (rate instanceof GraphQLError) return { errors: [rate] };
  const { requestMs } = edge.limits;
  const stop = new AbortController();
  const late = Promise.withResolvers<ExecutionResult>();
  const timer = setTimeout(() => {
    const error = timedOut('The request', requestMs);
    late.resolve({ errors: [edge.pipeline.shown(error, requestId)] });
    stop.abort(error);
  }, requestMs);
  const gone = (): void => stop.abort();
  connection.once('close', gone);
  try {
    const context = edge.contextFor(caller, stop.signal);
    const result = await Promise.race([edge.pipeline.execute(operation, context, requestId), late.promise]);
    return rate ? { ...result, extensions: { ...result.extensions, rateLimit: rate } } : result;
  } finally {
    clearTimeout(timer);
    connection.off('close', gone);
  }
}

/**
 * 200 once anything was executed: the body says the rest. Except where nothing came of it: no data because of an outage
 * is 503, for both media types, so that balancers and retrying clients see it.
 *
 * @see GraphQL over HTTP, 6.4 Status codes
 */
export function statusOfResult({ data, errors }: ExecutionResult): number {
  if (!errors?.length) return 200;
  if (data === undefined) return statusOfCode(codeOfError(errors[0]!));
  return data === null && errors.every((error) => codeOfError(error) === 'UNAVAILABLE') ? 503 : 200;
}

export const callFields = ({ requestId, actor, operation }: Call): Record<string, unknown> => ({
  requestId,
  ...(actor ? { actor: actorName(actor) } : {}),
  ...(operation ? { operation: operation.node.name?.value ?? operation.node.operation, cost: operation.cost } : {}),
});
