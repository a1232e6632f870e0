import { VirtgraphError } from './errors.ts';

/** Who asks. `system` files repairs; it never comes from outside. */
export type Actor =
  | { kind: 'anonymous' }
  | { kind: 'root-admin'; tokenId: number; name: string }
  | { kind: 'system'; name: string };

export type Verb = 'read' | 'create' | 'update' | 'delete' | 'operate';

/** How an actor stands in jobs, events and idempotency keys. */
export const actorName = (actor: Actor): string => (actor.kind === 'anonymous' ? 'anonymous' : actor.name);

/**
 * The one decision about rights; its twin for lists is db/visible.ts. `object` is what is acted on: a resource, or the
 * kind of the one to be made.
 *
 * @throws VirtgraphError UNAUTHENTICATED, or NOT_FOUND where the object is not for this actor to know of
 */
export function authorize(actor: Actor, _verb: Verb, _object: { kind: string }): void {
  if (actor.kind === 'anonymous')
    throw new VirtgraphError({
      code: 'UNAUTHENTICATED',
      message: 'Send a known token as `Authorization: Bearer <token>`.',
    });
}
