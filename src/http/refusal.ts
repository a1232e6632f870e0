import { GraphQLError } from 'graphql';
import type { ErrorCode } from '../domain/errors.ts';
import { VirtgraphError } from '../domain/errors.ts';

/** A typed error stays; anything else is logged with the request id, and becomes INTERNAL, which shows the id alone. */
export type ToGraphQLError = (error: unknown, requestId: string) => GraphQLError;

const STATUS: Partial<Record<ErrorCode, number>> = {
  UNAUTHENTICATED: 401,
  NOT_FOUND: 404,
  FORBIDDEN: 403,
  RATE_LIMITED: 429,
  UNAVAILABLE: 503,
  TIMEOUT: 504,
  INTERNAL: 500,
};

export const codeOfError = (error: GraphQLError): ErrorCode | null =>
  (error.extensions['code'] as ErrorCode | undefined) ?? null;

/** When to come again, for statuses that say so. */
export function retryAfter(status: number, errors: readonly GraphQLError[] | undefined): Record<string, string> {
  if (status === 503) return { 'retry-after': '1' };
  if (status !== 429) return {};
  const ms = Number(errors?.[0]?.extensions['retryAfterMs'] ?? 1_000);
  return { 'retry-after': String(Math.ceil(ms / 1000)) };
}

/** The HTTP status of a request that was not executed. */
export const statusOfCode = (code: ErrorCode | null): number => (code ? STATUS[code] : undefined) ?? 400;

/** A request that is answered with errors alone, because it was never executed. */
export class Refusal extends Error {
  readonly errors: readonly GraphQLError[];
  readonly status: number;
  /**
   * What `application/json` gets. GraphQL over HTTP: a well-formed request is answered with 200 there, whatever its
   * document, because clients of that media type take another status for the word of a proxy.
   */
  readonly legacyStatus: number;
  readonly headers: Record<string, string>;

  constructor(
    errors: readonly GraphQLError[],
    {
      status,
      legacyStatus,
      headers,
    }: { status?: number; legacyStatus?: number; headers?: Record<string, string> } = {},
  ) {
    super(errors[0]?.message ?? 'refused');
    this.name = 'Refusal';
    this.errors = errors;
    this.status = status ?? statusOfCode(errors[0] ? codeOfError(errors[0]) : 'INTERNAL');
    this.legacyStatus = legacyStatus ?? this.status;
    this.headers = headers ?? {};
  }
}

/** A request whose form is wrong, before anything of it was understood. */
export const malformed = (message: string, status = 400, headers: Record<string, string> = {}): Refusal =>
  new Refusal([new GraphQLError(message, { extensions: { code: 'INVALID_INPUT' } })], { status, headers });

/** A well-formed request whose document or variables don't fit the schema. */
export function invalidDocument(errors: readonly GraphQLError[]): Refusal {
  for (const error of errors) error.extensions['code'] ??= 'INVALID_INPUT';
  return new Refusal(errors, { status: 400, legacyStatus: 200 });
}

/**
 * Of variables that don't fit, without their values: graphql-js repeats all of an input in which a field is missing,
 * and what is sent may be a password, while what is answered ends in the logs of programs.
 */
export const invalidVariables = (errors: readonly GraphQLError[]): Refusal =>
  invalidDocument(errors.map((error) => new GraphQLError(withoutValue(error), { nodes: error.nodes ?? null })));

function withoutValue({ message, originalError }: GraphQLError): string {
  const [head] = /^Variable "\$\w+" got invalid value /.exec(message) ?? [];
  if (!head || !originalError) return message;
  const reason = originalError.message.replace(/( cannot represent [^:]*): .*$/s, '$1.');
  const shown = message.slice(head.length, -`; ${originalError.message}`.length);
  return `${head.trimEnd()}${/ at "[\w.[\]]+"$/.exec(shown)?.[0] ?? ''}; ${reason}`;
}

export const unauthenticated = (): Refusal =>
  new Refusal(
    [
      new GraphQLError('Send a known token as `Authorization: Bearer <token>`.', {
        extensions: { code: 'UNAUTHENTICATED' },
      }),
    ],
    { status: 401, headers: { 'www-authenticate': 'Bearer' } },
  );

export const timedOut = (what: string, ms: number): VirtgraphError =>
  new VirtgraphError({ code: 'TIMEOUT', message: `${what} took longer than the ${ms / 1000} s it may.` });
