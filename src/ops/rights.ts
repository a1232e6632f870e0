import { authorizeWith, isKept, isOfDomain, type Owned, ownerOf, restsOn, rightsOf } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { excess, type GuardedKind, type Rights, type RoleRow, rightsOfRole } from '../domain/permission.ts';
import type { OpsContext } from './context.ts';
import type { Asker } from './mutation.ts';
import type { Wanted } from './named-resource.ts';

const SHOWN = 5;

const forbidden = (message: string, path: string[]): VirtgraphError =>
  new VirtgraphError({ code: 'FORBIDDEN', message, path });

/** As the kind was authorised, now the very object, which the asker sees. @throws VirtgraphError FORBIDDEN */
export async function mustHaveRightWith(
  { inventory }: OpsContext,
  { actor, verb }: Asker,
  kind: GuardedKind,
  row: Owned,
): Promise<void> {
  if (isOfDomain(actor)) await inventory.know([ownerOf(kind, row)]);
  authorizeWith(actor, verb, kind, row, inventory);
}

/**
 * Nobody gives what he has not, and nobody acts on someone who has more.
 *
 * @param whose `The role x`
 * @throws VirtgraphError FORBIDDEN, which names what is beyond the asker
 */
export const mustNotExceed = ({ actor }: Asker, rights: Rights, whose: string, path: string[]): void =>
  mustNotExceedRights(rightsOf(actor), rights, whose, path);

/** @throws VirtgraphError FORBIDDEN */
export function mustNotExceedRights(own: Rights, rights: Rights, whose: string, path: string[]): void {
  const beyond = excess(rights, own);
  if (beyond.length === 0) return;
  const more = beyond.length > SHOWN ? ` and ${beyond.length - SHOWN} more` : '';
  throw forbidden(`${whose} has more rights than you: ${beyond.slice(0, SHOWN).join(', ')}${more}.`, path);
}

/** Who sees a domain only because its account stands in it arranges nothing there. @throws VirtgraphError FORBIDDEN */
export function mustReachDomains({ actor }: Asker, path: string[]): void {
  if (rightsOf(actor).reach === 'ACCOUNT') throw forbidden('Your role reaches no further than your own account.', path);
}

/** Roles are of nobody: they are for whoever may grant them. @throws VirtgraphError FORBIDDEN */
export function mustReachAll({ actor }: Asker, path: string[] | null = null): void {
  if (rightsOf(actor).reach === 'ALL') return;
  throw new VirtgraphError({ code: 'FORBIDDEN', message: 'Only who reaches everything arranges roles.', path });
}

const STANDS_ON = {
  domain: 'You are in this domain yourself.',
  account: 'You are in this account yourself.',
  identity_provider: 'You sign in by this identity provider yourself.',
};

/**
 * What an installation rests on stays; and nobody takes away what he himself stands on.
 *
 * @throws VirtgraphError INVALID_STATE, FORBIDDEN
 */
export function mayGo(kind: 'user' | keyof typeof STANDS_ON, id: number, { actor }: Asker, wanted: Wanted): void {
  if (wanted === 'ENABLED') return;
  const done = wanted.toLowerCase();
  if (isKept(kind, id))
    throw new VirtgraphError({
      code: 'INVALID_STATE',
      message: `Every installation has this ${kind}: it can not be ${done}.`,
      path: ['id'],
      state: 'BUILT_IN',
      allowedActions: ['UPDATE'],
    });
  if (restsOn(actor, { kind, id }))
    throw forbidden(kind === 'user' ? `You can not be ${done} by yourself.` : STANDS_ON[kind], ['id']);
}

export async function roleOf({ db }: OpsContext, id: number): Promise<RoleRow & { name: string }> {
  return db.selectFrom('role').select(['id', 'name', 'reach', 'rules']).where('id', '=', id).executeTakeFirstOrThrow();
}

/** @throws VirtgraphError FORBIDDEN for a user who has more rights than the asker */
export async function mustOutrank(
  context: OpsContext,
  user: { name: string; role_id: number },
  asker: Asker,
  path: string[],
): Promise<void> {
  mustNotExceed(asker, rightsOfRole(await roleOf(context, user.role_id)), `The user ${user.name}`, path);
}

/**
 * As of one user, for all that are in a domain or below it, in an account, or come by an identity provider: they are
 * shut out with it.
 */
export async function mustOutrankAllIn(
  { db }: OpsContext,
  where: { account: number } | { path: string } | { provider: number },
  asker: Asker,
): Promise<void> {
  let query = db
    .selectFrom('user')
    .innerJoin('account', 'account.id', 'user.account_id')
    .innerJoin('domain', 'domain.id', 'account.domain_id')
    .innerJoin('role', 'role.id', 'user.role_id')
    .select(['role.id', 'role.reach', 'role.rules'])
    .distinct()
    .where('user.deleted_at', 'is', null)
    .where('account.deleted_at', 'is', null);
  if ('path' in where) query = query.where('domain.path', 'like', `${where.path}%`);
  else if ('account' in where) query = query.where('account.id', '=', where.account);
  else query = query.where('user.identity_provider_id', '=', where.provider);
  for (const role of await query.execute()) mustNotExceed(asker, rightsOfRole(role), 'Someone in it', ['id']);
}
