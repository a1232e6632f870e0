import { type Actor, may } from '../domain/authorize.ts';
import { ERROR_CODES, type ErrorCode, type UserErrorData } from '../domain/errors.ts';
import { builder } from './builder.ts';
import { PlacementRejectionRef } from './placement.ts';

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

/** Errors whose messages name hosts and say how full they are, and what is said to who may not know of hosts. */
const WITHOUT_HOSTS: Partial<Record<ErrorCode, string>> = {
  INSUFFICIENT_CAPACITY: 'Nothing has room for it at the moment.',
  HOST_UNREACHABLE: 'What it runs on cannot be asked at the moment. Nothing was changed.',
};

const messageTo = (actor: Actor, { code, message }: UserErrorData): string =>
  may(actor, 'read', 'host') ? message : (WITHOUT_HOSTS[code] ?? message);

export const UserErrorRef = builder.interfaceRef<UserErrorData>('UserError').implement({
  description: 'Why something was not done, for the one who asked. New types of it may come; each has these fields.',
  resolveType: (error) => {
    if (error.rejections) return 'InsufficientCapacityError';
    return error.state === undefined ? 'FieldError' : 'InvalidStateError';
  },
  fields: (t) => ({
    code: t.expose('code', { type: ErrorCodeRef, description: 'What kind of error, for programs.' }),
    message: t.string({
      description: 'What is wrong, for people.',
      resolve: (error, _args, { actor }) => messageTo(actor, error),
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
