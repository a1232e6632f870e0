import { isLiveSession } from '../db/principal.ts';
import { SIGN_IN_METHODS, type SignInMethod } from '../domain/session.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { EventList } from './event.ts';
import { loadersOf } from './loaders.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import { SessionRef, UserRef } from './refs.ts';

const METHOD_DESCRIPTIONS: Record<SignInMethod, string> = {
  PASSWORD: 'By a password that is kept here.',
  OIDC: 'By an OpenID Connect provider.',
  LDAP: 'By the password of a directory.',
};
const SignInMethodRef = builder.enumType('SignInMethod', {
  description: 'How somebody showed who he is.',
  values: Object.fromEntries(
    SIGN_IN_METHODS.map((method) => [method, { description: METHOD_DESCRIPTIONS[method] }]),
  ) as Record<SignInMethod, { description: string }>,
});

SessionRef.implement({
  description: 'Somebody signed in somewhere. It ends with signing out, when it is revoked, idle or old.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'session'),
    user: t.field({
      type: UserRef,
      nullable: true,
      description: 'Who is signed in. Null for who may not see it.',
      resolve: (session, _args, context) => loadersOf(context).find('user', session.user_id),
    }),
    how: t.expose('how', { type: SignInMethodRef, description: 'How he showed who he is.' }),
    secondFactor: t.boolean({
      description: 'Whether a second factor was shown too.',
      resolve: (session) => session.second_factor === 1,
    }),
    address: t.exposeString('address', {
      nullable: true,
      description: 'The address that it was opened from, where it is known.',
    }),
    userAgent: t.exposeString('user_agent', {
      nullable: true,
      description: 'What the program that opened it says it is.',
    }),
    isCurrent: t.boolean({
      description: 'Whether this very request comes in it.',
      resolve: ({ id }, _args, { actor }) =>
        actor.kind === 'user' && actor.credential.kind === 'session' && actor.credential.id === id,
    }),
    lastUsedAt: t.expose('last_used_at', {
      type: 'DateTime',
      description: 'When anything was asked in it last, to about a minute.',
    }),
    expiresAt: t.expose('expires_at', { type: 'DateTime', description: 'When it ends, however it is used.' }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was opened.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was signed out or revoked. Null while it was not; it may have run out all the same.',
    }),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: 'session',
      condition: conditionsOn('event').is('subject_kind', 'session')[0]!,
    }),
  }),
});

const SessionFilterRef = builder.inputType('SessionFilter', {
  description: 'Narrows a list of sessions.',
  fields: (t) => ({ userId: t.id({ description: 'Only sessions of this user.' }) }),
});

const where = conditionsOn('session');
export const SessionList = list({
  table: 'session',
  ref: SessionRef,
  noun: 'Session',
  filter: SessionFilterRef,
  conditions: (filter, actor) => [isLiveSession, ...where.refersTo('user_id', 'user', filter.userId, 'userId', actor)],
});

builder.queryFields((t) => ({
  session: lookUp(t, 'session'),
  sessions: rootList(t, SessionList, 'The sessions that the caller may see, without those that have ended.'),
}));
