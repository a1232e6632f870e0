import { VirtgraphError } from '../domain/errors.ts';

/** The driver's name for a statement that was not answered in time. The connection is of no use any more. */
export const STATEMENT_TIMEOUT = 'PROTOCOL_SEQUENCE_TIMEOUT';
const CONNECTION_LOST = new Set([
  'PROTOCOL_CONNECTION_LOST',
  'ECONNRESET',
  'EPIPE',
  // What MySQL says where MariaDB only ends the connection: it said nothing for too long.
  'ER_CLIENT_INTERACTION_TIMEOUT',
]);
/** Deadlock, lock wait, record changed since last read. */
const CONTENTION = new Set(['ER_LOCK_DEADLOCK', 'ER_LOCK_WAIT_TIMEOUT', 'ER_CHECKREAD']);
/** The database is away, full, read-only or refuses: an outage, not a fault of the request. */
const OUTAGE = new Set([
  STATEMENT_TIMEOUT,
  ...CONNECTION_LOST,
  ...CONTENTION,
  'ECONNREFUSED',
  'ENOENT',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ER_CON_COUNT_ERROR',
  'ER_TOO_MANY_USER_CONNECTIONS',
  'ER_USER_LIMIT_REACHED',
  'ER_DISK_FULL',
  'ER_RECORD_FILE_FULL',
  'ER_OPTION_PREVENTS_STATEMENT',
  'ER_READ_ONLY_MODE',
  'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION',
  'ER_SERVER_SHUTDOWN',
  'ER_CONNECTION_KILLED',
  'ER_QUERY_INTERRUPTED',
  'POOL_CLOSED',
  'ERR_STREAM_DESTROYED',
]);

export const codeOf = (error: unknown): string => (error as { code?: string } | null)?.code ?? '';
/** What the driver says of a connection that had ended before it was used: it gives no code. */
const hadEnded = (error: unknown): boolean =>
  codeOf(error) === '' && (error as { fatal?: boolean } | null)?.fatal === true;
export const isConnectionLost = (error: unknown): boolean => CONNECTION_LOST.has(codeOf(error)) || hadEnded(error);
export const isTimeout = (error: unknown): boolean => codeOf(error) === STATEMENT_TIMEOUT;
export const isRetryable = (error: unknown): boolean => isConnectionLost(error) || CONTENTION.has(codeOf(error));
/** Whether the error came from a driver that could not reach or use the database. */
export const isOutage = (error: unknown): boolean => OUTAGE.has(codeOf(error)) || hadEnded(error);

export const unavailable = (cause: unknown): VirtgraphError =>
  new VirtgraphError(
    { code: 'UNAVAILABLE', message: 'The database does not answer. Try again in a moment.' },
    { cause },
  );

/** Nothing was sent. */
export const timedOut = (message: string): Error => Object.assign(new Error(message), { code: STATEMENT_TIMEOUT });
