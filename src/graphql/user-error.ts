import { type Actor, may } from '../domain/authorize.ts';
import { ERROR_CODES, type ErrorCode, type UserErrorData, WITHOUT_HOSTS } from '../domain/errors.ts';
import { seesQuota } from '../domain/quota.ts';
import { builder } from './builder.ts';
import type { GraphContext } from './context.ts';
import { loadersOf } from './loaders.ts';
import { PlacementRejectionRef } from './placement.ts';
import { QuotaResourceRef } from './quota-resource.ts';
import { AccountRef, DomainRef } from './refs.ts';

export const ErrorCodeRef = builder.enumType('ErrorCode', {
  description: 'The closed vocabulary of errors; docs/errors.md says what to do about each.',
  values: Object.fromEntries(
    (Object.keys(ERROR_CODES) as ErrorCode[]).map((code) => [code, { description: ERROR_CODES[code].meaning }]),
  ) as Record<ErrorCode, { description: string }>,
});

/** What a host says in its own vocabulary and people need not tell apart. */
const REFUSED_BY_HOST = ['DISK_FULL', 'QEMU_FAILED', 'STALE_EPOCH'];

/** A code as it stands in the database: ours, or a host's. One that this version does not know is a fault. */
export function knownCode(code: string): ErrorCode {
  if (REFUSED_BY_HOST.includes(code)) return 'HOST_REFUSED';
  return code in ERROR_CODES ? (code as ErrorCode) : 'INTERNAL';
}

/** Of a domain above, nothing but that its quota is reached: neither name nor numbers. */
const HIDDEN_QUOTA = 'A quota above is reached. Whoever administers the domain can tell more.';
const quotaTo = ({ actor, inventory }: GraphContext, { quota }: UserErrorData) =>
  quota && seesQuota(actor, quota.owner, quota.path, inventory) ? quota : null;

const messageTo = (context: GraphContext, error: UserErrorData): string => {
  if (error.quota && !quotaTo(context, error)) return HIDDEN_QUOTA;
  return hostsTo(context.actor, error);
};

const hostsTo = (actor: Actor, { code, message }: UserErrorData): string =>
  may(actor, 'read', 'host') ? message : (WITHOUT_HOSTS[code] ?? message);

export const UserErrorRef = builder.interfaceRef<UserErrorData>('UserError').implement({
  description: 'Why something was not done, for the one who asked. New types of it may come; each has these fields.',
  resolveType: (error) => {
    if (error.quota) return 'QuotaExceededError';
    if (error.rejections) return 'InsufficientCapacityError';
    return error.state === undefined ? 'FieldError' : 'InvalidStateError';
  },
  fields: (t) => ({
    code: t.expose('code', { type: ErrorCodeRef, description: 'What kind of error, for programs.' }),
    message: t.string({
      description: 'What is wrong, for people.',
      resolve: (error, _args, context) => messageTo(context, error),
    }),
    path: t.exposeStringList('path', {
      nullable: true,
      description: 'Where in the `input` it comes from; null when no field is to blame.',
    }),
  }),
});

builder.objectRef<UserErrorData>('FieldError').implement({
  description: 'A field of the input, or the request as a whole, can not be accepted.',
  interfaces: [UserErrorRef],
});

builder.objectRef<UserErrorData>('InvalidStateError').implement({
  description: 'The object can not do this in the state that it is in.',
  interfaces: [UserErrorRef],
  fields: (t) => ({
    state: t.string({ description: 'The state that it is in.', resolve: (error) => error.state ?? '' }),
    allowedActions: t.stringList({
      description: 'What it can do instead.',
      resolve: (error) => error.allowedActions ?? [],
    }),
  }),
});

builder.objectRef<UserErrorData>('InsufficientCapacityError').implement({
  description: 'Nothing has room for it.',
  interfaces: [UserErrorRef],
  fields: (t) => ({
    rejections: t.field({
      type: [PlacementRejectionRef],
      description: 'Why not, host by host.',
      resolve: (error, _args, { actor }) => (may(actor, 'read', 'host') ? (error.rejections ?? []) : []),
    }),
  }),
});

const quotaNumber =
  (what: 'limit' | 'used' | 'asked') => (error: UserErrorData, _args: object, context: GraphContext) =>
    quotaTo(context, error)?.[what] ?? null;

builder.objectRef<UserErrorData>('QuotaExceededError').implement({
  description:
    'A quota of the account, or of a domain above it, is reached. Of one that the caller may not see, no more.',
  interfaces: [UserErrorRef],
  fields: (t) => ({
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whose quota it is; null for a domain.',
      resolve: ({ quota }, _args, context) =>
        quota?.owner.kind === 'account' ? loadersOf(context).find('account', quota.owner.id) : null,
    }),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Whose quota it is; null for an account, and for one that the caller may not see.',
      resolve: (error, _args, context) => {
        const owner = quotaTo(context, error)?.owner;
        return owner?.kind === 'domain' ? loadersOf(context).find('domain', owner.id) : null;
      },
    }),
    resource: t.field({
      type: QuotaResourceRef,
      nullable: true,
      description: 'Of what; null for a quota that the caller may not see.',
      resolve: (error, _args, context) => quotaTo(context, error)?.resource ?? null,
    }),
    limit: t.float({ nullable: true, description: 'How much may be used.', resolve: quotaNumber('limit') }),
    used: t.float({ nullable: true, description: 'How much is.', resolve: quotaNumber('used') }),
    asked: t.float({ nullable: true, description: 'How much more was asked for.', resolve: quotaNumber('asked') }),
  }),
});
