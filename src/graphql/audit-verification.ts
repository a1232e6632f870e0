import { type Verification, verifyAudit } from '../db/audit-chain.ts';
import { readsAll } from '../db/audit-filter.ts';
import { authorize } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { builder } from './builder.ts';

const DEFAULT_PAGES = 500;
const MAX_PAGES = 2_000;

const PageRef = builder.objectRef<Verification['head']>('AuditPage').implement({
  description: 'Consecutive audit records, sealed by a hash over them and over the page before.',
  fields: (t) => ({
    page: t.exposeInt('page', { description: 'Its number; the first is 1.' }),
    hash: t.string({ description: 'SHA-256, in hexadecimal.', resolve: ({ hash }) => hash.toString('hex') }),
  }),
});

const BrokenRef = builder.objectRef<{ page: number; what: string }>('BrokenAuditPage').implement({
  description: 'Where the audit trail is not as it was written.',
  fields: (t) => ({
    page: t.exposeInt('page', { description: 'The first page that is broken.' }),
    what: t.exposeString('what', { description: 'What is wrong with it.' }),
  }),
});

const VerificationRef = builder.objectRef<Verification>('AuditVerification').implement({
  description: 'Whether the audit trail is as it was written.',
  fields: (t) => ({
    intact: t.boolean({ description: 'Nothing was found.', resolve: ({ broken }) => broken === null }),
    firstBroken: t.field({
      type: BrokenRef,
      nullable: true,
      description: 'What was found first; null: nothing.',
      resolve: ({ broken }) => broken,
    }),
    pages: t.exposeInt('pages', { description: 'How many pages were found to be as they were sealed.' }),
    trimmedPages: t.exposeInt('trimmed', { description: 'Of those, how many have no records any more, by age.' }),
    trimmedUntil: t.expose('trimmedUntil', {
      type: 'DateTime',
      nullable: true,
      description:
        'When the newest of those records was written: not before what is kept begins, or somebody has removed it. ' +
        'Null: none has gone.',
    }),
    records: t.exposeInt('records', { description: 'How many records are in the others.' }),
    complete: t.exposeBoolean('complete', {
      description: 'There are no more pages; false: go on with `afterPage: head.page`, or it is broken.',
    }),
    head: t.field({
      type: PageRef,
      description:
        'The last page that was looked at. Who keeps the newest elsewhere can tell later whether the end was cut off.',
      resolve: ({ head }) => head,
    }),
  }),
});

builder.queryField('auditVerification', (t) =>
  t.field({
    type: VerificationRef,
    description: 'Reads the audit trail and recomputes its hashes. For operators.',
    args: {
      afterPage: t.arg.int({ description: 'Begin behind this page, whose hash is taken for right; 0 unless told.' }),
      pages: t.arg.int({
        description: `Look at so many pages at most: ${DEFAULT_PAGES} unless told, ${MAX_PAGES} at most.`,
      }),
    },
    extensions: { cost: { own: 500 } },
    resolve: async (_root, { afterPage, pages }, { actor, db }) => {
      authorize(actor, 'read', 'audit');
      if (!readsAll(actor))
        throw new VirtgraphError({ code: 'FORBIDDEN', message: 'Operators alone verify the audit trail.' });
      const maxPages = between(pages ?? DEFAULT_PAGES, 1, MAX_PAGES, 'pages');
      return verifyAudit(db, { afterPage: between(afterPage ?? 0, 0, 2 ** 31, 'afterPage'), maxPages });
    },
  }),
);

function between(value: number, min: number, max: number, argument: string): number {
  if (value >= min && value <= max) return value;
  throw new VirtgraphError({ code: 'INVALID_INPUT', message: `Between ${min} and ${max}.`, path: [argument] });
}
