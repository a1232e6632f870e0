import type { PlanItem } from '../ops/compound-job.ts';
import type { Payload } from '../ops/context.ts';
import { builder } from './builder.ts';
import { WANTED_NOUNS } from './context.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { answer, errorsField, idInput, inputOf, mutation } from './mutation.ts';
import { PermissionKindRef } from './permission.ts';
import { JobRef } from './refs.ts';

const DeletionItemRef = builder.objectRef<PlanItem>('DeletionItem').implement({
  description: 'Things of one kind that a deletion deletes.',
  fields: (t) => ({
    kind: t.expose('kind', { type: PermissionKindRef, description: 'What they are.' }),
    count: t.exposeInt('count', { description: 'How many.' }),
  }),
});

/** How it was asked for, beside what became of it. */
interface DeletionPayload extends Payload {
  publicId: string;
  isPlanned: boolean;
}

/** Declares enable, disable and delete of what has VMs and users inside. */
export function tenantMutations(
  kind: 'account' | 'domain',
  says: { enable: string; disable: string; delete: string },
): void {
  const noun = WANTED_NOUNS[kind];
  mutation(`enable${noun}`, kind, says.enable, (t) => idInput(t, noun));
  mutation(`disable${noun}`, kind, says.disable, (t) => ({
    ...idInput(t, noun),
    stopVms: t.boolean({
      description:
        'Whether its VMs are stopped too, by a job: in order, and by force after a minute. Else they run on.',
    }),
  }));

  const name = `delete${noun}` as const;
  const input = inputOf(name, (t) => ({
    ...idInput(t, noun),
    cascade: t.boolean({
      description: `Delete all that is inside too, by a job: the ${noun} is disabled at once, its VMs are destroyed and expunged, then the rest is deleted.`,
    }),
    dryRun: t.boolean({ description: 'Do nothing, but tell what `cascade` would delete, or why it would not.' }),
  }));
  const payload = builder.objectRef<DeletionPayload>(`Delete${noun}Payload`).implement({
    description: `What became of \`${name}\`.`,
    fields: (t) => ({
      id: t.id({
        nullable: true,
        description: `The id of the ${noun} that is deleted; null when it was refused, or is not deleted yet.`,
        resolve: ({ errors, publicId, isPlanned }) => (errors.length > 0 || isPlanned ? null : publicId),
      }),
      job: t.field({
        type: JobRef,
        nullable: true,
        description: 'What deletes it with all that is inside; null without `cascade`.',
        resolve: ({ jobId }, _args, context) => (jobId === null ? null : loadersOf(context).find('job', jobId)),
      }),
      plan: t.field({
        type: [DeletionItemRef],
        nullable: true,
        description: 'What is, or would be, deleted, in that order; null without `cascade` or `dryRun`.',
        resolve: ({ id, isPlanned }, _args, context) =>
          isPlanned && id !== null ? context.ops.deletionPlan({ kind, id }) : null,
      }),
      errors: errorsField(t as never),
    }),
  });
  builder.mutationField(name, (t) =>
    t.field({
      type: payload,
      description: says.delete,
      args: { input: t.arg({ type: input, required: true, description: 'What to delete.' }) },
      extensions: { cost: { own: 10 } },
      resolve: async (_root, args, context): Promise<DeletionPayload> => {
        forgetRead(context);
        const asked = args.input as Parameters<typeof context.ops.deleteDomain>[1];
        const payload = await answer(
          context.ops[name](context.actor, asked, context),
          (errors): Payload => ({
            id: null,
            jobId: null,
            errors,
          }),
        );
        return { ...payload, publicId: asked.id, isPlanned: Boolean(asked.cascade || asked.dryRun) };
      },
    }),
  );
}
