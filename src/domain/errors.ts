import type { PlacementRejection } from './placement.ts';

/**
 * The closed vocabulary of errors. Each row: whether trying the same again may help, and what it means to its reader.
 * docs/errors.md is generated from it.
 */
export const ERROR_CODES = {
  UNAUTHENTICATED: { retryable: false, meaning: 'No token, or one that is not known.' },
  INVALID_INPUT: { retryable: false, meaning: 'An argument is not what the field takes; `path` names it.' },
  NOT_FOUND: { retryable: false, meaning: 'There is no such object, or not for you.' },
  ALREADY_EXISTS: { retryable: false, meaning: 'The name is taken among its siblings.' },
  INVALID_STATE: {
    retryable: false,
    meaning: 'The object cannot do this in its state; `allowedActions` says what it can.',
  },
  NOT_EMPTY: { retryable: false, meaning: 'Something is still inside; the message names it.' },
  CONFLICT: { retryable: true, meaning: 'Someone else changed the object meanwhile. Read it again.' },
  INSUFFICIENT_CAPACITY: { retryable: true, meaning: 'No host or storage has room; `rejections` has the numbers.' },
  IDEMPOTENCY_KEY_REUSED: { retryable: false, meaning: 'The key was used with other arguments.' },
  QUEUE_FULL: { retryable: true, meaning: 'Too many jobs wait for this object.' },
  HOST_UNREACHABLE: { retryable: true, meaning: 'The host is not connected, so it cannot be asked.' },
  HOST_REFUSED: { retryable: false, meaning: 'The host could not do it; the message has its words.' },
  IMAGE_REFUSED: { retryable: false, meaning: 'The image is not what it says, or not safe.' },
  CANCELLED: { retryable: false, meaning: 'Cancelled by a person.' },
  NOT_CANCELLABLE: { retryable: false, meaning: 'The job has ended or is past the point of no return.' },
  TIMEOUT: { retryable: true, meaning: 'It took longer than it may.' },
  LIMIT_EXCEEDED: { retryable: false, meaning: 'The query is larger, deeper or dearer than is allowed.' },
  LOG_TRIMMED: {
    retryable: false,
    meaning: 'The events after this cursor are no longer kept. Read the state, then resume from now.',
  },
  UNAVAILABLE: {
    retryable: true,
    meaning: 'The database does not answer. Nothing was changed, or the same idempotency key will tell.',
  },
  INTERNAL: { retryable: false, meaning: 'A fault of Virtgraph. The request id finds it in the log.' },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An error as its reader gets it: one entry of a payload's `errors`. */
export interface UserErrorData {
  code: ErrorCode;
  message: string;
  /** Where in the mutation's `input` it comes from. */
  path: string[] | null;
  /** With INVALID_STATE. */
  state?: string;
  allowedActions?: string[];
  /** With INSUFFICIENT_CAPACITY. */
  rejections?: PlacementRejection[];
}

/** The one error class. `message` is safe to show; what only the log may have is the `cause`. */
export class VirtgraphError extends Error {
  readonly code: ErrorCode;
  readonly data: UserErrorData;

  constructor(data: Omit<UserErrorData, 'path'> & { path?: string[] | null }, options?: ErrorOptions) {
    super(data.message, options);
    this.name = 'VirtgraphError';
    this.code = data.code;
    this.data = { ...data, path: data.path ?? null };
  }
}

export const notFound = (noun: string, path: string[] | null = null): VirtgraphError =>
  new VirtgraphError({ code: 'NOT_FOUND', message: `There is no such ${noun}.`, path });
