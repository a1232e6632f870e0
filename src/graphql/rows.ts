import { type RawBuilder, type Selectable, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import type { StepProgress } from '../domain/host-agent.ts';
import type { ResourceKind } from '../domain/ids.ts';

/** What the graph reads: not the secrets, nor what only a job's runner needs. */
const NAMED = ['id', 'uid', 'name', 'generation', 'created_at', 'updated_at', 'deleted_at', 'wanted_state'] as const;

const COLUMNS = {
  zone: NAMED,
  pod: [...NAMED, 'zone_id'],
  cluster: [...NAMED, 'zone_id', 'pod_id', 'vcpu_overcommit', 'memory_overcommit'],
  host: [
    ...NAMED,
    'zone_id',
    'pod_id',
    'cluster_id',
    'link_state',
    'last_seen_at',
    'hypervisor',
    'hostd_version',
    'capabilities',
    'vcpus_total',
    'memory_total_mib',
    'vcpus_cap',
    'memory_cap_mib',
    'vcpus_used',
    'memory_used_mib',
  ],
  primary_storage: [...NAMED, 'zone_id', 'pod_id', 'cluster_id', 'kind', 'path', 'bytes_cap', 'bytes_used'],
  offering: [...NAMED, 'vcpus', 'memory_mib', 'disk_gib'],
  template: [
    ...NAMED,
    'zone_id',
    'account_id',
    'state',
    'state_reason',
    'format',
    'file_name',
    'virtual_bytes',
    'file_bytes',
    'sha256',
    'active_job_id',
  ],
  vm: [
    'id',
    'uid',
    'zone_id',
    'pod_id',
    'cluster_id',
    'host_id',
    'last_host_id',
    'offering_id',
    'template_id',
    'account_id',
    'name',
    'description',
    'state',
    'state_reason',
    'vcpus',
    'memory_mib',
    'epoch',
    'active_job_id',
    'generation',
    'observed_state',
    'observed_reason',
    'observed_at',
    'observed_host_id',
    'observed_epoch',
    'created_at',
    'updated_at',
    'started_at',
    'destroyed_at',
    'deleted_at',
  ],
  volume: [
    'id',
    'uid',
    'zone_id',
    'cluster_id',
    'primary_storage_id',
    'vm_id',
    'template_id',
    'account_id',
    'name',
    'role',
    'format',
    'state',
    'size_bytes',
    'created_at',
    'updated_at',
    'deleted_at',
  ],
  job: [
    'id',
    'uid',
    'kind',
    'state',
    'direction',
    'step',
    'target_kind',
    'target_id',
    'account_id',
    'parent_id',
    'actor',
    'reason',
    'error_code',
    'error_message',
    'progress',
    'step_percent',
    'cancellable',
    'cancel_requested_at',
    'created_at',
    'started_at',
    'finished_at',
  ],
  job_step: [
    'job_id',
    'seq',
    'name',
    'direction',
    'attempt',
    'state',
    'host_id',
    'error_code',
    'error_message',
    'progress_done',
    'progress_total',
    'progress_unit',
    'progress_rate',
    'started_at',
    'finished_at',
  ],
  event: [
    'seq',
    'type',
    'occurred_at',
    'subject_kind',
    'subject_id',
    'account_id',
    'job_id',
    'actor',
    'reason',
    'changes',
  ],
  audit: [
    'seq',
    'recorded_at',
    'action',
    'outcome',
    'code',
    'actor',
    'user_id',
    'credential',
    'address',
    'account_id',
    'subject_kind',
    'subject_id',
    'asked_id',
    'job_id',
    'reason',
    'changes',
    'request_id',
  ],
  domain: [...NAMED, 'parent_id', 'path', 'require_second_factor'],
  account: [...NAMED, 'domain_id', 'type'],
  user: [...NAMED, 'account_id', 'role_id', 'identity_provider_id', 'password_changed_at', 'totp_confirmed_at'],
  project_member: [
    'id',
    'uid',
    'account_id',
    'member_account_id',
    'member_user_id',
    'role_id',
    'generation',
    'created_at',
    'updated_at',
    'deleted_at',
  ],
  role: [...NAMED, 'reach', 'rules', 'built_in'],
  identity_provider: [...NAMED, 'domain_id', 'account_id', 'type', 'settings', 'role_mapping'],
  api_key: [
    'id',
    'uid',
    'user_id',
    'account_id',
    'role_id',
    'name',
    'expires_at',
    'created_at',
    'updated_at',
    'last_used_at',
    'deleted_at',
  ],
  session: [
    'id',
    'uid',
    'user_id',
    'account_id',
    'how',
    'second_factor',
    'address',
    'user_agent',
    'last_used_at',
    'expires_at',
    'created_at',
    'updated_at',
    'deleted_at',
  ],
} as const satisfies { [T in ReadTable]: readonly (keyof Selectable<Database[T]>)[] };

type ReadTable = ResourceKind | 'job_step' | 'event' | 'audit';
export type Row<T extends ReadTable> = Pick<
  Selectable<Database[T]>,
  (typeof COLUMNS)[T][number] & keyof Selectable<Database[T]>
>;

export type ZoneRow = Row<'zone'>;
export type PodRow = Row<'pod'>;
export type ClusterRow = Row<'cluster'>;
export type HostRow = Row<'host'>;
export type PrimaryStorageRow = Row<'primary_storage'>;
export type OfferingRow = Row<'offering'>;
export type TemplateRow = Row<'template'>;
export type VmRow = Row<'vm'>;
export type VolumeRow = Row<'volume'>;
export type EventRow = Row<'event'>;
export type AuditRow = Row<'audit'>;
export type DomainRow = Row<'domain'>;
export type AccountRow = Row<'account'>;
export type ProjectMemberRow = Row<'project_member'>;
export type UserRow = Row<'user'>;
export type RoleRow = Row<'role'>;
export type IdentityProviderRow = Row<'identity_provider'>;
export type ApiKeyRow = Row<'api_key'>;
export type SessionRow = Row<'session'>;
/**
 * `live`: the progress that this job is shown with, where a subscription has fixed it; otherwise the host agent is asked.
 */
export type JobRow = Row<'job'> & { live?: StepProgress | null };
/** `live`: that of its job, where this is the job's open step. */
export type JobStepRow = Row<'job_step'> & { live?: StepProgress | null };

/** The columns of a table for a `select`, qualified by its name. */
export const selected = (table: ReadTable): RawBuilder<unknown> => SELECTED[table];

const SELECTED = Object.fromEntries(
  Object.entries(COLUMNS).map(([table, columns]) => [
    table,
    sql.join(columns.map((column) => sql.ref(`${table}.${column}`))),
  ]),
) as Record<ReadTable, RawBuilder<unknown>>;
