import { GraphQLError } from 'graphql';
import type { Logger } from 'pino';
import { isOutage, unavailable } from '../db/failure.ts';
import { ERROR_CODES, VirtgraphError } from '../domain/errors.ts';

/**
 * The one edge where errors become answers. What the caller may know keeps its code and message; everything else is a
 * fault of ours: it goes to the log with the request's id, and the caller gets the id alone.
 *
 * @returns an error whose `extensions.code` is one of ERROR_CODES
 */
export function toGraphQLError(error: unknown, requestId: string, log: Pick<Logger, 'error'>): GraphQLError {
  const cause = causeOf(error);
  if (cause instanceof VirtgraphError) return answer(error, cause);
  if (isOutage(cause)) {
    log.error({ err: cause, requestId }, 'the database does not answer');
    return answer(error, unavailable(cause));
  }
  if (cause instanceof GraphQLError && isOfTheRequest(cause)) return withCode(cause);
  log.error({ err: cause, requestId }, 'a request failed by a fault of ours');
  const message = 'A fault of Virtgraph. The request id finds it in the log.';
  return located(error, message, { code: 'INTERNAL', requestId });
}

/** Executors wrap what resolvers throw, more than once when a subscription's source fails. */
function causeOf(error: unknown): unknown {
  let cause = error;
  while (cause instanceof GraphQLError && cause.originalError) cause = cause.originalError;
  return cause;
}

/**
 * Parsing, validation and variables fail before there is a path. With one, only an error that someone gave a code was
 * meant for the caller: the rest are the executor's own, such as null in a field that is never null.
 */
const isOfTheRequest = (error: GraphQLError): boolean =>
  error.path === undefined || (error.extensions['code'] as string) in ERROR_CODES;

function withCode(error: GraphQLError): GraphQLError {
  const code = error.extensions['code'];
  if (typeof code === 'string' && code in ERROR_CODES) return error;
  return located(error, error.message, { ...error.extensions, code: 'INVALID_INPUT' });
}

function answer(error: unknown, { data }: VirtgraphError): GraphQLError {
  const { code, path } = data;
  return located(error, data.message, { code, ...(path ? { argument: path } : {}) });
}

function located(error: unknown, message: string, extensions: Record<string, unknown>): GraphQLError {
  const at = error instanceof GraphQLError ? error : null;
  return new GraphQLError(message, {
    ...(at?.nodes ? { nodes: at.nodes } : {}),
    ...(at?.source ? { source: at.source } : {}),
    ...(at?.positions ? { positions: at.positions } : {}),
    ...(at?.path ? { path: at.path } : {}),
    extensions,
  });
}
