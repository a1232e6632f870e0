import { VirtgraphError } from '../domain/errors.ts';
import { type QuotaOwner, type ResourceUsage, seesQuota } from '../domain/quota.ts';
import type { Payload } from '../ops/context.ts';
import { builder } from './builder.ts';
import type { GraphContext, InputOf } from './context.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { answer, errorsField, inputOf } from './mutation.ts';
import { uidOf } from './public-id.ts';
import { quotaOf } from './quota-read.ts';
import { QuotaResourceRef } from './quota-resource.ts';
import { AccountRef, DomainRef, QuotaRef } from './refs.ts';

const ResourceQuotaRef = builder.objectRef<ResourceUsage>('ResourceQuota').implement({
  description: 'How much of one resource may be and is used. Numbers are in the unit that the resource is named by.',
  fields: (t) => ({
    resource: t.expose('resource', { type: QuotaResourceRef, description: 'Of what.' }),
    limit: t.exposeFloat('limit', {
      nullable: true,
      description: 'How much may be used; less than is used where it was lowered. Null: without a limit of its own.',
    }),
    used: t.exposeFloat('used', { description: 'How much is: of a domain, with all below it.' }),
    effectiveLimit: t.exposeFloat('effectiveLimit', {
      nullable: true,
      description: 'The least of this limit and those of the domains above. Null: none of them has one.',
    }),
    available: t.exposeFloat('available', {
      nullable: true,
      description: 'How much may be taken yet: the least that is left here and in the domains above. Null: no limit.',
    }),
  }),
});

QuotaRef.implement({
  description: 'What an account, or a domain with all below it, may use and uses.',
  fields: (t) => ({
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whose it is; null for a domain.',
      resolve: ({ owner }, _args, context) =>
        owner.kind === 'account' ? loadersOf(context).find('account', owner.id) : null,
    }),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Whose it is; null for an account.',
      resolve: ({ owner }, _args, context) =>
        owner.kind === 'domain' ? loadersOf(context).find('domain', owner.id) : null,
    }),
    generation: t.exposeInt('generation', {
      description: 'Grows with each change of limits; for `expectedGeneration`.',
    }),
    resources: t.expose('resources', { type: [ResourceQuotaRef], description: 'One by one, always all of them.' }),
  }),
});

interface OwnerArgs {
  accountId?: string | null | undefined;
  domainId?: string | null | undefined;
}

/** Whose quota is asked for; null: there is no such account or domain, or its quota is not for the caller to see. */
export async function ownerOf(context: GraphContext, { accountId, domainId }: OwnerArgs): Promise<QuotaOwner | null> {
  if ((accountId == null) === (domainId == null))
    throw new VirtgraphError({ code: 'INVALID_INPUT', message: 'Give exactly one of accountId and domainId.' });
  const loaders = loadersOf(context);
  if (accountId != null) {
    const row = await loaders.findByUid('account', uidOf('account', accountId, ['accountId']));
    return row && { kind: 'account', id: row.id };
  }
  const row = await loaders.findByUid('domain', uidOf('domain', domainId!, ['domainId']));
  const owner = row && ({ kind: 'domain', id: row.id } as const);
  return owner && seesQuota(context.actor, owner, row.path, context.inventory) ? owner : null;
}

builder.objectFields(AccountRef, (t) => ({
  quota: t.field({
    type: QuotaRef,
    nullable: true,
    description: 'What it may use and uses.',
    resolve: ({ id }, _args, context) => quotaOf(context, { kind: 'account', id }),
  }),
}));
builder.objectFields(DomainRef, (t) => ({
  quota: t.field({
    type: QuotaRef,
    nullable: true,
    description: 'What it may use and uses with all below it. Null for who reaches no further than his own account.',
    resolve: ({ id, path }, _args, context) => {
      const owner = { kind: 'domain', id } as const;
      return seesQuota(context.actor, owner, path, context.inventory) ? quotaOf(context, owner) : null;
    },
  }),
}));

builder.queryField('quotaUsage', (t) =>
  t.field({
    type: QuotaRef,
    nullable: true,
    description:
      'The quota of an account or domain; null when there is none for the caller to see. Give exactly one argument.',
    args: {
      accountId: t.arg.id({ description: 'That of this account.' }),
      domainId: t.arg.id({ description: 'That of this domain, with all below it.' }),
    },
    resolve: async (_root, args, context) => {
      const owner = await ownerOf(context, args);
      return owner && quotaOf(context, owner);
    },
  }),
);

const QuotaLimitInputRef = builder.inputType('QuotaLimitInput', {
  description: 'One limit.',
  fields: (t) => ({
    resource: t.field({ type: QuotaResourceRef, required: true, description: 'Of what.' }),
    limit: t.float({ description: 'A whole number, in the unit that the resource is named by. Null: no limit.' }),
  }),
});

type QuotaPayload = Payload & { kind: QuotaOwner['kind'] };
const UpdateQuotaPayloadRef = builder.objectRef<QuotaPayload>('UpdateQuotaPayload').implement({
  description: 'What became of `updateQuota`.',
  fields: (t) => ({
    quota: t.field({
      type: QuotaRef,
      nullable: true,
      description: 'The quota as it is now; null when it was refused.',
      resolve: ({ id, kind }, _args, context) => (id === null ? null : quotaOf(context, { kind, id })),
    }),
    errors: errorsField(t as never),
  }),
});

builder.mutationField('updateQuota', (t) =>
  t.field({
    type: UpdateQuotaPayloadRef,
    description:
      'Sets limits of an account or domain; those that are not named stay. Who administers a domain sets those of the ' +
      'accounts in it and of what is below it, never his own.',
    args: {
      input: t.arg({
        type: inputOf('updateQuota', (fields) => ({
          accountId: fields.id({ description: 'The id of the account. Give either this or `domainId`.' }),
          domainId: fields.id({ description: 'The id of the domain.' }),
          expectedGeneration: fields.int({
            description: 'Refuse with CONFLICT when the quota is at another generation than this.',
          }),
          limits: fields.field({
            type: [QuotaLimitInputRef],
            required: true,
            description: 'What changes. A limit below what is used lets nothing new be made, and takes nothing away.',
          }),
        })),
        required: true,
        description: 'Whose limits, and which.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: async (_root, args, context) => {
      forgetRead(context);
      const input = args.input as InputOf<'updateQuota'>;
      const payload = await answer(context.ops.updateQuota(context.actor, input, context), (errors) => ({
        id: null,
        jobId: null,
        errors,
      }));
      return { ...payload, kind: input.accountId == null ? ('domain' as const) : ('account' as const) };
    },
  }),
);
