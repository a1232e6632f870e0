import { sql } from 'kysely';
import { newUid } from '../db/ids.ts';
import type { IdentityProvider, User } from '../db/tables.ts';
import {
  emptyTransition,
  hold,
  holdEnabled,
  insert,
  type NewAudit,
  patch,
  plus,
  type Transition,
} from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { type ExternalIdentity, mappingOf, nameFrom, numbered, roleFor } from '../domain/identity-provider.ts';
import type { FieldChange } from '../domain/kinds.ts';
import type { OpsContext, Via } from './context.ts';

const TRIES = 5;

/**
 * The user of somebody whom a provider knows, by his subject alone: made where he comes for the first time, with the role
 * of his groups as they are now.
 *
 * @throws VirtgraphError FORBIDDEN where none of his groups has a role, CONFLICT
 */
export async function admitExternal(
  context: OpsContext,
  provider: IdentityProvider,
  identity: ExternalIdentity,
  via: Via,
): Promise<{ userId: number }> {
  for (let tries = 0; tries < TRIES; tries++) {
    const role = await roleOf(context, provider, identity);
    if (!role) return refuse(context, provider, identity, via);
    const user = await userOf(context, provider, identity.subject);
    if (user && user.role_id === role.id) return { userId: user.id };
    const id = user?.id ?? (await context.ids.take());
    const transition = user
      ? await mappedAnew(context, provider, user, role, via)
      : await madeAnew(context, provider, { id, identity, role }, via);
    const outcome = await context.writer.submit(transition);
    if (outcome.kind === 'written') return { userId: id };
    // Somebody of the same name, or he himself by another browser, was faster; or the role has gone: look again.
  }
  throw new VirtgraphError({ code: 'CONFLICT', message: 'Others change this at the same time. Try again.' });
}

interface MappedTo {
  id: number;
  name: string;
}

/** A mapping to a role that is no more gives none: the rest of the mapping was not meant for him. */
async function roleOf(
  { db }: OpsContext,
  provider: IdentityProvider,
  { groups }: ExternalIdentity,
): Promise<MappedTo | undefined> {
  const id = roleFor(provider.type, mappingOf(provider), groups);
  if (id === null) return undefined;
  return db
    .selectFrom('role')
    .select(['id', 'name'])
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
}

const userOf = ({ db }: OpsContext, provider: IdentityProvider, subject: string): Promise<User | undefined> =>
  db
    .selectFrom('user')
    .selectAll()
    .where('identity_provider_id', '=', provider.id)
    .where('external_subject', '=', subject)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();

async function mappedAnew(
  { db }: OpsContext,
  provider: IdentityProvider,
  user: User,
  role: MappedTo,
  via: Via,
): Promise<Transition> {
  const before = await db.selectFrom('role').select('name').where('id', '=', user.role_id).executeTakeFirstOrThrow();
  const guard = { generation: user.generation, deleted_at: null };
  return transitionOf(
    provider,
    user.id,
    'updated',
    [{ field: 'role', before: before.name, after: role.name }],
    [patch('user', user.id, guard, { role_id: role.id, generation: plus(1) }), hold('role', role.id)],
    via,
  );
}

async function madeAnew(
  context: OpsContext,
  provider: IdentityProvider,
  { id, identity, role }: { id: number; identity: ExternalIdentity; role: MappedTo },
  via: Via,
): Promise<Transition> {
  const name = await freeName(context, provider.account_id, nameFrom(identity.name));
  const row = {
    id,
    uid: newUid(),
    account_id: provider.account_id,
    role_id: role.id,
    name,
    identity_provider_id: provider.id,
    external_subject: identity.subject,
  };
  return transitionOf(
    provider,
    id,
    'created',
    [
      { field: 'name', before: null, after: name },
      { field: 'role', before: null, after: role.name },
    ],
    [
      holdEnabled('account', provider.account_id),
      hold('role', role.id),
      holdEnabled('identity_provider', provider.id),
      insert('user', row),
    ],
    via,
  );
}

/** What people are called is no proof of who they are: whoever comes second has a number behind his name. */
async function freeName({ db }: OpsContext, accountId: number, wanted: string): Promise<string> {
  const rows = await db
    .selectFrom('user')
    .select('name')
    .where('account_id', '=', accountId)
    .where('deleted_at', 'is', null)
    .where(sql<boolean>`left(name, char_length(${wanted})) = ${wanted}`)
    .execute();
  return numbered(wanted, new Set(rows.map(({ name }) => name)));
}

function transitionOf(
  provider: IdentityProvider,
  userId: number,
  what: 'created' | 'updated',
  changes: FieldChange[],
  writes: Transition['writes'],
  via: Via,
): Transition {
  const subject = { kind: 'user' as const, id: userId };
  const actor = actorOf(provider);
  return {
    ...emptyTransition(),
    writes,
    changes: [subject],
    events: [
      { type: `user.${what}`, subject, accountId: provider.account_id, jobId: null, actor, reason: null, changes },
    ],
    audits: [{ ...auditOf(provider, via), outcome: 'ALLOWED', code: null, userId, subject, changes }],
  };
}

const actorOf = ({ name }: IdentityProvider): string => `identity provider ${name}`.slice(0, 255);

/** Somebody whom the provider knows and nobody lets in: it is on the trail, under what the provider calls him. */
async function refuse(
  context: OpsContext,
  provider: IdentityProvider,
  identity: ExternalIdentity,
  via: Via,
): Promise<never> {
  const changes = [{ field: 'subject', before: null, after: identity.subject }];
  const audit: NewAudit = { ...auditOf(provider, via), outcome: 'REFUSED', code: 'FORBIDDEN', changes };
  await context.writer.submit({ ...emptyTransition(), audits: [audit] });
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `${provider.name} knows you, but none of your groups there is let in here. Ask whoever administers your domain.`,
  });
}

/** @param provider null: nobody knows yet by which */
export const auditOf = (
  provider: IdentityProvider | null,
  { address, requestId }: Via,
): Omit<NewAudit, 'outcome' | 'code'> => ({
  action: 'signIn',
  actor: provider ? actorOf(provider) : 'anonymous',
  userId: null,
  credential: null,
  address,
  accountId: provider?.account_id ?? null,
  subject: provider && { kind: 'identity_provider', id: provider.id },
  jobId: null,
  reason: null,
  changes: [],
  requestId,
});
