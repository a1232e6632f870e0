import type { PlacementRejection } from './placement.ts';
import type { QuotaExcess, QuotaOwner } from './quota.ts';

interface ErrorAdvice {
  /** Whether trying the same again may help. */
  retryable: boolean;
  /** What it says, for its reader. */
  meaning: string;
  /** What to do about it: who asked, who runs Virtgraph, who writes a client. */
  user: string;
  operator: string;
  developer: string;
}

/** The closed vocabulary of errors. docs/errors.md is generated from it. */
export const ERROR_CODES = {
  UNAUTHENTICATED: {
    retryable: false,
    meaning: 'No token, or one that is not known; or nobody is let in with what was shown.',
    user: 'Sign in, or with a token that is known.',
    operator:
      'The root token is in the file `admin-token` of the data folder; a join token is made by `createHostJoinToken`.',
    developer:
      'Send `Authorization: Bearer <token>`, in `connection_init` over WebSocket. Ask for another token; never repeat.',
  },
  SECOND_FACTOR_REQUIRED: {
    retryable: false,
    meaning: 'The password is right; a code of the second factor is asked for too.',
    user: 'Enter the code that your authenticator shows, or one of your recovery codes.',
    operator: 'Who has lost both: `removeTotp` for that user.',
    developer: 'Ask for a code and send `signIn` again with it as `code`.',
  },
  SECOND_FACTOR_ENROLMENT_REQUIRED: {
    retryable: false,
    meaning:
      'The domain asks for a second factor, and the user has none: the session is good for setting one up alone.',
    user: 'Set up an authenticator.',
    operator: '`updateDomain(requireSecondFactor: …)` decides whether a domain asks for it.',
    developer:
      'Call `beginTotp`, show its `uri` as a QR code, then `confirmTotp` with a code. The same session goes on.',
  },
  FORBIDDEN: {
    retryable: false,
    meaning: 'Your role may not do this to what you can see.',
    user: 'Ask whoever administers your domain for a role that may.',
    operator: '`viewer { permissions }` shows what decides, asked with the token of the one who is refused.',
    developer: 'Offer what `allowedActions` of the object holds. Repeating does not help before the role has changed.',
  },
  INVALID_INPUT: {
    retryable: false,
    meaning: 'An argument is not what the field takes; `path` names it.',
    user: 'Correct the field that is named.',
    operator: 'Nothing.',
    developer:
      'Show the message at the field that `path` leads to. At the top of an answer it is the document or a variable.',
  },
  NOT_FOUND: {
    retryable: false,
    meaning: 'There is no such object, or not for you.',
    user: 'Look the object up again: it may have been deleted.',
    operator: 'The event log tells who deleted it: `events(filter: { subjectId: … })`.',
    developer: 'Drop what is remembered of the object. A mutation answers an id of another kind in the same way.',
  },
  ALREADY_EXISTS: {
    retryable: false,
    meaning: 'The name is taken among its siblings.',
    user: 'Choose another name.',
    operator: 'A host that is to join anew under its name takes a token of `createHostJoinToken` with its `hostId`.',
    developer: 'To make a thing once, send an `idempotencyKey` instead of counting on this error.',
  },
  INVALID_STATE: {
    retryable: false,
    meaning: 'The object cannot do this in its state; `allowedActions` says what it can.',
    user: 'Do one of `allowedActions`, or wait for the job that is under way.',
    operator: 'Where a zone, offering, template, account or domain is disabled: enable it.',
    developer: 'Offer what `allowedActions` of the object holds; do not copy the transition table.',
  },
  NOT_EMPTY: {
    retryable: false,
    meaning: 'Something is still inside; the message names it.',
    user: 'Remove what is named first. A destroyed VM counts until it is expunged.',
    operator: 'Nothing.',
    developer: 'Show the message: it has the number and the first names.',
  },
  CONFLICT: {
    retryable: true,
    meaning: 'Someone else changed the object meanwhile. Read it again.',
    user: 'Look at what has changed, then decide again.',
    operator: 'Many of them: two programs work on the same objects.',
    developer: 'Read the object again and repeat with its `generation`, or ask the person.',
  },
  INSUFFICIENT_CAPACITY: {
    retryable: true,
    meaning: 'No host or storage has room; `rejections` has the numbers.',
    user: 'Choose a smaller offering or another zone, or ask for room.',
    operator: 'Each rejection names the rule and what is missing: add or enable hosts, raise the overcommit, free VMs.',
    developer: 'Show `rejections`. `explainPlacement` asks the same rules without creating anything.',
  },
  QUOTA_EXCEEDED: {
    retryable: false,
    meaning: 'A quota of the account, or of a domain above it, is reached; the message has the numbers.',
    user: 'Delete and expunge what is no longer needed, or ask whoever administers the domain for more.',
    operator: '`updateQuota` raises a limit; `quotaUsage` shows limits and use of an account or domain.',
    developer: 'Show the message. `available` of `quotaUsage` tells beforehand what may still be taken.',
  },
  IDEMPOTENCY_KEY_REUSED: {
    retryable: false,
    meaning: 'The key was used with other arguments.',
    user: 'Ask again; the program has to take another key.',
    operator: 'Nothing.',
    developer: 'One key for one intent: the same key only with the same input, for 24 h.',
  },
  QUEUE_FULL: {
    retryable: true,
    meaning: 'Too many jobs wait for this object.',
    user: 'Wait until some of `queuedJobs` are done, or cancel them.',
    operator: 'See which job holds the object (`activeJob`) and whether it needs attention.',
    developer: 'Repeat later, with growing pauses.',
  },
  HOST_UNREACHABLE: {
    retryable: true,
    meaning: 'The host is not connected, so it cannot be asked.',
    user: 'Try again later. What runs on the host is not touched by this.',
    operator: 'See `hosts { linkState lastSeenAt }`, then the log of the host daemon.',
    developer: 'Repeat when `hostChanged` says UP.',
  },
  HOST_REFUSED: {
    retryable: false,
    meaning: 'The host could not do it; the message has its words.',
    user: 'Read the message.',
    operator: 'The log of the host daemon has the command by its id.',
    developer: 'Show the message.',
  },
  IMAGE_REFUSED: {
    retryable: false,
    meaning: 'The image is not what it says, or not safe.',
    user: 'Convert the image to a plain qcow2 or raw file without backing file, and register it again.',
    operator: 'Nothing on the host was changed. A template that was refused keeps its reason until it is deleted.',
    developer: 'Show the message.',
  },
  CANCELLED: {
    retryable: false,
    meaning: 'Cancelled by a person.',
    user: 'Ask again if it is wanted after all.',
    operator: 'Nothing: what had been done is taken back.',
    developer: 'The end of a job in state CANCELLED, not a failure.',
  },
  NOT_CANCELLABLE: {
    retryable: false,
    meaning: 'The job has ended or is past the point of no return.',
    user: 'Wait for its end.',
    operator: 'Nothing.',
    developer: 'Offer the cancel only while the job says `cancellable`.',
  },
  TIMEOUT: {
    retryable: true,
    meaning: 'It took longer than it may.',
    user: 'A guest that does not power off can be stopped with `force`. Else try again.',
    operator: 'See the load of the host, and the step of the job that took too long.',
    developer: 'For a job: `retryJob`. For a request: the same `idempotencyKey` tells whether it was accepted.',
  },
  LIMIT_EXCEEDED: {
    retryable: false,
    meaning: 'The query is larger, deeper or dearer than is allowed.',
    user: 'Ask for less at once.',
    operator: 'Nothing: the limits protect everybody else.',
    developer: 'Pages are `first` long: nested lists multiply. `extensions.cost` of an answer says what it cost.',
  },
  RATE_LIMITED: {
    retryable: true,
    meaning: 'You have asked for more in a minute than one caller may.',
    user: 'Wait as long as the message says.',
    operator: 'Nothing: root tokens are not limited.',
    developer:
      'Wait `retryAfterMs` of the error, or `Retry-After`. `extensions.rateLimit` of each answer tells what is left; ' +
      'a subscription costs once and replaces polling.',
  },
  LOG_TRIMMED: {
    retryable: false,
    meaning: 'The events after this cursor are no longer kept. Read the state, then resume from now.',
    user: 'Nothing: the program reads everything anew.',
    operator: 'Events are kept for 90 days.',
    developer: 'Read the objects, then follow `eventAppended` without `afterSeq`.',
  },
  UNAVAILABLE: {
    retryable: true,
    meaning:
      'The database, or what is asked to sign somebody in, does not answer. Nothing was changed, or the same ' +
      'idempotency key will tell.',
    user: 'Try again in a moment. VMs run on.',
    operator:
      'See `/readyz` and the database, or the log for an identity provider. Nothing has to be restarted when it is back.',
    developer: 'Repeat with the same `idempotencyKey`, with growing pauses.',
  },
  INTERNAL: {
    retryable: false,
    meaning: 'A fault of Virtgraph. The request id finds it in the log.',
    user: 'Tell an operator the request id.',
    operator: 'Search the log for the request id and report what stands there.',
    developer: 'Show `extensions.requestId`. Do not repeat blindly.',
  },
} as const satisfies Record<string, ErrorAdvice>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Errors whose messages name hosts and say how full they are, and what is said to who may not know of hosts. */
export const WITHOUT_HOSTS: Partial<Record<ErrorCode, string>> = {
  INSUFFICIENT_CAPACITY: 'Nothing has room for it at the moment.',
  HOST_UNREACHABLE: 'What it runs on cannot be asked at the moment. Nothing was changed.',
};

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
  /** With QUOTA_EXCEEDED: whose quota. `path` is that of a domain, by which it is told who may know of it. */
  quota?: QuotaExcess & { owner: QuotaOwner; path?: string };
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
