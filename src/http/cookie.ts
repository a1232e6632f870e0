import { createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { PENDING_SIGN_IN_MS } from '../domain/session.ts';
import { isAllowedOrigin } from './origin.ts';

/** A browser's scripts show with it that they are ours: those of another origin can neither read nor send it. */
export const CSRF_HEADER = 'x-virtgraph-csrf';

/** `__Host-`: set over TLS by this very host, and never for another. */
const SECURE = { session: '__Host-virtgraph', csrf: '__Host-virtgraph-csrf', pending: '__Host-virtgraph-pending' };
/** Without TLS, as on one's own machine. */
const PLAIN = { session: 'virtgraph', csrf: 'virtgraph-csrf', pending: 'virtgraph-pending' };

/** Follows from the session's token, which scripts can't read, so nothing is kept of it and nobody can guess it. */
const csrfOf = (token: string): string => createHmac('sha256', token).update('csrf').digest('base64url');

/** What a browser has kept of a session, whether or not it may be used; null: nothing. */
export const cookieToken = (request: IncomingMessage): string | null => cookieOf(request, 'session');

/** Of a sign-in that was begun on a provider's page; null: none. */
export const pendingCookie = (request: IncomingMessage): string | null => cookieOf(request, 'pending');

function cookieOf(request: IncomingMessage, which: keyof typeof SECURE): string | null {
  const cookies = cookiesOf(request);
  return cookies.get(SECURE[which]) ?? cookies.get(PLAIN[which]) ?? null;
}

const cookiesOf = ({ headers }: IncomingMessage): Map<string, string> =>
  new Map(
    (headers.cookie ?? '').split(';').map((pair) => {
      const at = pair.indexOf('=');
      return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    }),
  );

/**
 * Whether a request is one that our own scripts sent, and not a page of somebody else's to which the browser added the
 * cookie: from an origin that is ours or listed, and with what follows from the session.
 */
export function provesOrigin(request: IncomingMessage, token: string, origins: readonly string[]): boolean {
  if (!saysOrigin(request) || !isAllowedOrigin(request, origins)) return false;
  const shown = Buffer.from(String(request.headers[CSRF_HEADER] ?? ''));
  const wanted = Buffer.from(csrfOf(token));
  return shown.length === wanted.length && timingSafeEqual(shown, wanted);
}

/** A browser says where a POST or an upgrade comes from. */
export const saysOrigin = ({ headers }: IncomingMessage): boolean =>
  headers.origin !== undefined || headers['sec-fetch-site'] === 'same-origin';

/** Cookies that an answer sets. */
export class AnswerCookies {
  /** Values of `Set-Cookie`. */
  readonly headers: string[] = [];
  readonly #names: typeof SECURE;
  readonly #attributes: string;
  readonly #secure: string;

  constructor(request: IncomingMessage) {
    const secure = isOverTls(request);
    this.#secure = secure ? '; Secure' : '';
    this.#names = secure ? SECURE : PLAIN;
    this.#attributes = `Path=/; SameSite=Strict${this.#secure}`;
  }

  /** @returns what the browser's scripts send along in CSRF_HEADER */
  keep(token: string): string {
    const csrf = csrfOf(token);
    this.headers.push(
      `${this.#names.session}=${token}; HttpOnly; ${this.#attributes}`,
      `${this.#names.csrf}=${csrf}; ${this.#attributes}`,
    );
    return csrf;
  }

  /** Sent along when somebody else's page leads here, which is how a sign-in comes back. */
  keepPending(pending: string): void {
    this.#setPending(pending, PENDING_SIGN_IN_MS);
  }

  forgetPending(): void {
    this.#setPending('', 0);
  }

  #setPending(value: string, ms: number): void {
    const attributes = `Max-Age=${ms / 1_000}; HttpOnly; Path=/; SameSite=Lax${this.#secure}`;
    this.headers.push(`${this.#names.pending}=${value}; ${attributes}`);
  }

  forget(): void {
    for (const name of [this.#names.session, this.#names.csrf])
      this.headers.push(`${name}=; Max-Age=0; ${this.#attributes}`);
  }
}

/** Whoever lies here has a cookie that his own browser keeps for TLS, and nothing else. */
function isOverTls(request: IncomingMessage): boolean {
  const { socket, headers } = request;
  if ((socket as TLSSocket).encrypted || headers['x-forwarded-proto'] === 'https') return true;
  // Whom a provider's page has led back says no origin: what his browser kept when he began tells.
  return headers.origin?.startsWith('https://') || cookiesOf(request).has(SECURE.pending);
}
