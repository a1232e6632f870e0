import type { ResourceKind } from './ids.ts';

/** What a job or an event may be about. */
export type TargetKind = Exclude<ResourceKind, 'job'>;

/** One changed field of an event, as text that a person reads. */
export interface FieldChange {
  field: string;
  before: string | null;
  after: string | null;
}

/** What became of what was asked for, as the audit trail has it. */
export const AUDIT_OUTCOMES = ['ALLOWED', 'REFUSED'] as const;
export type AuditOutcome = (typeof AUDIT_OUTCOMES)[number];
