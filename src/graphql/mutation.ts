import type { InputFieldMap } from '@pothos/core';
import { type ErrorCode, type UserErrorData, VirtgraphError } from '../domain/errors.ts';
import type { ResourceKind } from '../domain/ids.ts';
import type { Payload, Via } from '../ops/context.ts';
import { builder, type GraphTypes } from './builder.ts';
import { type InputOf, type MutationName, WANTED_NOUNS, type WantedKind } from './context.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { JobRef, REF_OF } from './refs.ts';
import { UserErrorRef } from './user-error.ts';

type InputFields = PothosSchemaTypes.InputFieldBuilder<GraphTypes, 'InputObject'>;

/** On every mutation. */
const baseFields = (t: InputFields) => ({
  idempotencyKey: t.string({
    description:
      'Chosen by the caller, at most 128 characters, kept for 24 h: the same key and input give the same answer and ' +
      'do nothing twice.',
  }),
  reason: t.string({ description: 'Why, for whoever asks later; it is kept with the event and the job.' }),
});

/** On those without a key: what comes out is told once only, or what goes in may not even be kept as a hash. */
export const unkeyedFields = (t: InputFields) => ({ reason: baseFields(t).reason });

/** Names the object that a mutation is about. */
export const idInput = (t: InputFields, noun: string) => ({
  id: t.id({ required: true, description: `The id of the ${noun}.` }),
});

/** What updates take besides what they change. */
export const updateInput = (t: InputFields, noun: string) => ({
  ...idInput(t, noun),
  expectedGeneration: t.int({
    description: 'Refuse with CONFLICT when the object is at another generation than this.',
  }),
});

/** Faults that no input of the caller's brought about stand at the top of the answer instead. */
const TOP_LEVEL: ErrorCode[] = ['UNAUTHENTICATED', 'UNAVAILABLE', 'INTERNAL'];
const isTopLevel = (code: ErrorCode): boolean => TOP_LEVEL.includes(code);

/** Runs an operation; what it refuses becomes an entry of `errors`. What was read before is read again after it. */
export async function answer<P extends Payload>(work: Promise<P>, refused: (errors: UserErrorData[]) => P): Promise<P> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof VirtgraphError && !isTopLevel(error.code)) return refused([error.data]);
    throw error;
  }
}
const nothing = (errors: UserErrorData[]): Payload => ({ id: null, jobId: null, errors });

export const errorsField = (t: PothosSchemaTypes.ObjectFieldBuilder<GraphTypes, Payload>) =>
  t.expose('errors', { type: [UserErrorRef], description: 'Why it was not done; empty when it was, or is under way.' });

const pascal = (name: string): string => name[0]!.toUpperCase() + name.slice(1);
const camel = (name: string): string => name[0]!.toLowerCase() + name.slice(1);

/** @param base on every mutation, unless it is one whose answer or input is not to be kept */
export function inputOf(
  name: string,
  fields: (t: InputFields) => InputFieldMap,
  base: (t: InputFields) => InputFieldMap = baseFields,
) {
  return builder.inputType(`${pascal(name)}Input`, {
    description: `What \`${name}\` takes.`,
    fields: (t) => ({ ...fields(t), ...base(t) }),
  });
}

/** Declares a mutation with its `<Name>Input` and `<Name>Payload`; the operation of the same name does the work. */
export function mutation<M extends MutationName>(
  name: M,
  kind: ResourceKind,
  description: string,
  fields: (t: InputFields) => InputFieldMap,
  base = baseFields as (t: InputFields) => InputFieldMap,
): void {
  const noun = REF_OF[kind].name;
  const input = inputOf(name, fields, base);
  const payload = builder.objectRef<Payload>(`${pascal(name)}Payload`).implement({
    description: `What became of \`${name}\`.`,
    fields: (t) => ({
      ...(kind === 'job'
        ? {}
        : {
            [camel(noun)]: t.field({
              type: REF_OF[kind] as (typeof REF_OF)['vm'],
              nullable: true,
              description: `The ${noun} as it is now; null when it was refused.`,
              resolve: ({ id }, _args, context) => (id === null ? null : (loadersOf(context).find(kind, id) as never)),
            }),
          }),
      job: t.field({
        type: JobRef,
        nullable: true,
        description: 'What carries it out; null when it is done already, or was refused.',
        resolve: ({ id, jobId }, _args, context) => {
          const job = kind === 'job' ? (jobId ?? id) : jobId;
          return job === null ? null : loadersOf(context).find('job', job);
        },
      }),
      errors: errorsField(t),
    }),
  });
  builder.mutationField(name, (t) =>
    t.field({
      type: payload,
      description,
      args: { input: t.arg({ type: input, required: true, description: 'What to do.' }) },
      extensions: { cost: { own: 10 } },
      resolve: (_root, args, context) => {
        forgetRead(context);
        // The fields above and the operation's own schema are the same: test/repo compares them.
        const op = context.ops[name] as (actor: typeof context.actor, input: InputOf<M>, via: Via) => Promise<Payload>;
        return answer(op(context.actor, args.input as InputOf<M>, context), nothing);
      },
    }),
  );
}

/** Declares enable, disable and delete of what operators want or no longer want. */
export function wantedMutations(kind: WantedKind, says: { enable: string; disable: string; delete: string }): void {
  const noun = WANTED_NOUNS[kind];
  const fields = (t: InputFields) => idInput(t, noun);
  mutation(`enable${noun}`, kind, says.enable, fields);
  mutation(`disable${noun}`, kind, says.disable, fields);
  deletion(`delete${noun}`, noun, says.delete);
}

/** Declares a mutation that deletes, and answers with the id of what is no more. */
export function deletion(name: MutationName & `delete${string}`, noun: string, description: string): void {
  const input = inputOf(name, (t) => idInput(t, noun));
  const payload = builder.objectRef<Payload & { publicId?: string }>(`${pascal(name)}Payload`).implement({
    description: `What became of \`${name}\`.`,
    fields: (t) => ({
      id: t.id({
        nullable: true,
        description: `The id of the ${noun} that is deleted; null when it was refused.`,
        resolve: ({ errors, publicId }) => (errors.length > 0 ? null : (publicId ?? null)),
      }),
      errors: errorsField(t as never),
    }),
  });
  builder.mutationField(name, (t) =>
    t.field({
      type: payload,
      description,
      args: { input: t.arg({ type: input, required: true, description: 'What to delete.' }) },
      extensions: { cost: { own: 10 } },
      resolve: async (_root, args, context) => {
        forgetRead(context);
        const byId = args.input as InputOf<typeof name>;
        return { ...(await answer(context.ops[name](context.actor, byId, context), nothing)), publicId: byId.id };
      },
    }),
  );
}
