import type { IncomingMessage } from 'node:http';
import { GraphQLError } from 'graphql';
import type { Actor } from '../domain/authorize.ts';
import { CSRF_HEADER, cookieToken, provesOrigin } from './cookie.ts';
import { type Edge, headerToken, identify } from './edge.ts';
import { codeOfError, Refusal, unauthenticated } from './refusal.ts';

/** Who asks, and by which token; neither a token nor anybody: only what is public may be asked. */
export type Identity = { actor: Actor; token: string } | { actor: { kind: 'anonymous' }; token: null; why: Refusal };

/**
 * Who a request over HTTP comes from. A token in the header counts always, and one that is not known is refused. A cookie
 * counts on a POST of our own scripts; where it does not, or means nobody any more, the request is as one without: so that
 * a browser with an old one can sign in again.
 *
 * @throws Refusal UNAUTHENTICATED, UNAVAILABLE
 */
export async function identityOf(edge: Edge, request: IncomingMessage, requestId: string): Promise<Identity> {
  if (request.headers.authorization !== undefined) {
    const token = headerToken(request);
    return { actor: await identify(edge, token, requestId), token: token! };
  }
  const nobody = { actor: { kind: 'anonymous' as const }, token: null };
  const token = cookieToken(request);
  if (token === null) return { ...nobody, why: unauthenticated() };
  if (request.method !== 'POST' || !provesOrigin(request, token, edge.origins)) return { ...nobody, why: unproven() };
  try {
    return { actor: await identify(edge, token, requestId), token };
  } catch (error) {
    if (!(error instanceof Refusal) || codeOfError(error.errors[0]!) !== 'UNAUTHENTICATED') throw error;
    return { ...nobody, why: error };
  }
}

const unproven = (): Refusal =>
  new Refusal([
    new GraphQLError(`A cookie counts on a POST from our own pages alone, with the header \`${CSRF_HEADER}\`.`, {
      extensions: { code: 'FORBIDDEN' },
    }),
  ]);
