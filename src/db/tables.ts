import type { ColumnType, Selectable } from 'kysely';
import type { HostLinkState, HostWantedState, WantedState } from '../domain/host-state.ts';
import type { ResourceKind } from '../domain/ids.ts';
import type { JobState, StepDirection, StepState } from '../domain/job-state.ts';
import type { AuditOutcome, TargetKind } from '../domain/kinds.ts';
import type { ObservedVmState, VmState } from '../domain/vm-state.ts';
import type { TemplateState, VolumeState } from '../domain/volume-state.ts';
import type { Defaulted, Named, NullableTimestamp, Timestamp } from './column-types.ts';
import type { IdentityProviderTable, UsedSignInTable } from './identity-provider-tables.ts';
import type { AccountQuotaTable, QuotaTable } from './quota-tables.ts';
import type {
  AccountTable,
  ApiKeyTable,
  DomainTable,
  ProjectMemberTable,
  RoleTable,
  SessionTable,
  UserTable,
} from './tenant-tables.ts';

/**
 * The rows, column by column as schema/mysql has them. Who writes what:
 * `ops` and `jobs` write what is wanted (`state`, `wanted_state`, reservations), `hosts` what is seen
 * (`observed_*`, `link_*`, `last_seen_at`, `*_total`). Every write goes through the writer (db/writer.ts).
 */

export interface ZoneTable extends Named {
  wanted_state: Defaulted<WantedState>;
}

export interface PodTable extends Named {
  zone_id: number;
  wanted_state: Defaulted<WantedState>;
}

export interface ClusterTable extends Named {
  zone_id: number;
  pod_id: number;
  wanted_state: Defaulted<WantedState>;
  vcpu_overcommit: Defaulted<number>;
  memory_overcommit: Defaulted<number>;
}

export interface HostTable extends Named {
  zone_id: number;
  pod_id: number;
  cluster_id: number;
  wanted_state: Defaulted<HostWantedState>;
  link_state: Defaulted<HostLinkState>;
  link_process: Defaulted<string | null>;
  link_session: Defaulted<string | null>;
  last_seen_at: NullableTimestamp;
  hypervisor: Defaulted<string | null>;
  hostd_version: Defaulted<string | null>;
  /** JSON: string[] */
  capabilities: string;
  vcpus_total: Defaulted<number>;
  memory_total_mib: Defaulted<number>;
  vcpus_cap: Defaulted<number>;
  memory_cap_mib: Defaulted<number>;
  vcpus_used: Defaulted<number>;
  memory_used_mib: Defaulted<number>;
  /** The lowest version of a certificate that is accepted of it. */
  certificate_floor: Defaulted<number>;
  certificate_revoked_at: NullableTimestamp;
}

export interface HostCertificateAuthorityTable {
  id: number;
  /** DER */
  certificate: Buffer;
  /** PKCS #8, sealed. */
  sealed_key: Buffer;
  created_at: Timestamp;
}

export interface HostCertificateTable {
  id: number;
  host_id: number;
  /** In order, of one host. */
  version: number;
  serial: Buffer;
  fingerprint: Buffer;
  public_key_hash: Buffer;
  /** What it was joined with; null: renewed. */
  join_token_id: Defaulted<number | null>;
  /** DER */
  certificate: Buffer;
  not_before: Timestamp;
  not_after: Timestamp;
  warned_at: NullableTimestamp;
  created_at: Timestamp;
}

export interface HostJoinTokenTable {
  id: number;
  cluster_id: number;
  token_hash: Buffer;
  hosts_max: number;
  hosts_joined: Defaulted<number>;
  expires_at: ColumnType<string, Date | string, Date | string>;
  created_at: Timestamp;
  /** The host that is there already and may join again; null: new ones. */
  host_id: Defaulted<number | null>;
}

export interface PrimaryStorageTable extends Named {
  zone_id: number;
  pod_id: number;
  cluster_id: number;
  kind: Defaulted<'DIRECTORY'>;
  path: string;
  wanted_state: Defaulted<WantedState>;
  bytes_cap: number;
  bytes_used: Defaulted<number>;
}

export interface OfferingTable extends Named {
  wanted_state: Defaulted<WantedState>;
  vcpus: number;
  memory_mib: number;
  disk_gib: number | null;
}

export interface TemplateTable extends Named {
  zone_id: number;
  /** Null: everybody may use it. */
  account_id: Defaulted<number | null>;
  wanted_state: Defaulted<WantedState>;
  state: TemplateState;
  state_reason: Defaulted<string | null>;
  format: 'QCOW2' | 'RAW';
  file_name: string;
  virtual_bytes: Defaulted<number | null>;
  file_bytes: Defaulted<number | null>;
  sha256: Defaulted<string | null>;
  active_job_id: Defaulted<number | null>;
}

export interface TemplateCopyTable {
  template_id: number;
  primary_storage_id: number;
  created_at: Timestamp;
}

export interface VmTable {
  id: number;
  uid: Buffer;
  zone_id: number;
  pod_id: number;
  cluster_id: number;
  host_id: number | null;
  last_host_id: Defaulted<number | null>;
  offering_id: number;
  template_id: number;
  /** Whose it is; the operator's unless told. */
  account_id: Defaulted<number>;
  name: string;
  description: string | null;
  state: VmState;
  state_reason: Defaulted<string | null>;
  vcpus: number;
  memory_mib: number;
  epoch: number;
  active_job_id: number | null;
  generation: Defaulted<number>;
  observed_state: Defaulted<ObservedVmState | null>;
  observed_reason: Defaulted<string | null>;
  observed_at: NullableTimestamp;
  observed_host_id: Defaulted<number | null>;
  observed_epoch: Defaulted<number | null>;
  created_at: Timestamp;
  updated_at: Timestamp;
  started_at: NullableTimestamp;
  destroyed_at: NullableTimestamp;
  deleted_at: NullableTimestamp;
}

export interface ReservationTable {
  vm_id: number;
  host_id: number;
  vcpus: number;
  memory_mib: number;
}

export interface HostUsageTable {
  host_id: number;
  sampled_at: ColumnType<string, Date | string, Date | string>;
  cpu_load: number;
  memory_used_mib: number;
}

export interface VmUsageTable {
  vm_id: number;
  sampled_at: ColumnType<string, Date | string, Date | string>;
  cpu_ns: number;
  memory_bytes: number;
  disk_read_bytes: number;
  disk_write_bytes: number;
  network_receive_bytes: number | null;
  network_transmit_bytes: number | null;
}

export interface VolumeTable {
  id: number;
  uid: Buffer;
  zone_id: number;
  cluster_id: number;
  primary_storage_id: number;
  vm_id: number | null;
  template_id: number | null;
  account_id: Defaulted<number>;
  name: string;
  role: 'ROOT' | 'DATA';
  format: 'QCOW2' | 'RAW';
  state: VolumeState;
  size_bytes: number;
  created_at: Timestamp;
  updated_at: Timestamp;
  deleted_at: NullableTimestamp;
}

export interface JobTable {
  id: number;
  uid: Buffer;
  kind: string;
  workflow_version: number;
  state: JobState;
  direction: Defaulted<StepDirection>;
  step: Defaulted<number>;
  target_kind: TargetKind;
  target_id: number;
  /** Whose target it has; null: only operators may know of it. */
  account_id: Defaulted<number | null>;
  parent_id: Defaulted<number | null>;
  actor: string;
  reason: string | null;
  /** JSON: what was asked. */
  input: string;
  /** JSON: what was resolved when the job began; null while it is queued. */
  context: string | null;
  error_code: Defaulted<string | null>;
  error_message: Defaulted<string | null>;
  failed_step: Defaulted<string | null>;
  progress: Defaulted<number>;
  step_percent: Defaulted<number>;
  /** 0 or 1: BOOLEAN is a small number to the driver. */
  cancellable: Defaulted<number>;
  cancel_requested_at: NullableTimestamp;
  lease_owner: Defaulted<string | null>;
  lease_epoch: Defaulted<number>;
  due_at: NullableTimestamp;
  created_at: Timestamp;
  started_at: NullableTimestamp;
  finished_at: NullableTimestamp;
}

export interface JobStepTable {
  job_id: number;
  seq: number;
  name: string;
  direction: StepDirection;
  attempt: Defaulted<number>;
  state: StepState;
  host_id: number | null;
  vm_epoch: Defaulted<number>;
  command: string | null;
  /** JSON: arguments of the command. */
  payload: string | null;
  /** JSON: what the host answered. */
  result: Defaulted<string | null>;
  error_code: Defaulted<string | null>;
  error_message: Defaulted<string | null>;
  timeout_ms: Defaulted<number>;
  progress_done: Defaulted<number | null>;
  progress_total: Defaulted<number | null>;
  progress_unit: Defaulted<string | null>;
  progress_rate: Defaulted<number | null>;
  started_at: Timestamp;
  finished_at: NullableTimestamp;
}

export interface IdempotencyKeyTable {
  id: number;
  actor: string;
  mutation: string;
  idempotency_key: string;
  args_hash: Buffer;
  resource_id: number | null;
  job_id: number | null;
  created_at: Timestamp;
}

export interface ApiTokenTable {
  id: number;
  name: string;
  role: 'ROOT_ADMIN';
  token_hash: Buffer;
  created_at: Timestamp;
}

export interface ControlProcessTable {
  id: string;
  url: string;
  peer_secret: string;
  started_at: Timestamp;
  seen_at: ColumnType<string, Date | string, Date | string>;
}

export interface EventTable {
  seq: number;
  type: string;
  occurred_at: Timestamp;
  subject_kind: TargetKind;
  subject_id: number;
  /** As of a job. */
  account_id: Defaulted<number | null>;
  job_id: number | null;
  actor: string;
  reason: string | null;
  /** JSON: FieldChange[] */
  changes: string;
}

export interface ChangeTable {
  seq: number;
  kind: string;
  resource_id: number;
  origin: string;
  committed_at: Timestamp;
}

export interface FeedHeadTable {
  seq: number;
  event_trimmed_to: Defaulted<number>;
  /** The highest of `audit`. */
  audit_seq: Defaulted<number>;
}

/** Written with what it tells of, and never again: the chain of pages is over every column. */
export interface AuditTable {
  seq: number;
  recorded_at: Timestamp;
  action: string;
  outcome: AuditOutcome;
  code: string | null;
  actor: string;
  user_id: number | null;
  credential: string | null;
  address: string | null;
  account_id: number | null;
  subject_kind: ResourceKind | null;
  subject_id: number | null;
  asked_id: string | null;
  job_id: number | null;
  reason: string | null;
  /** JSON: FieldChange[] */
  changes: string;
  request_id: string | null;
}

/** Written by the loop that seals; `trimmed_at` by retention. */
export interface AuditPageTable {
  page: number;
  first_seq: number;
  last_seq: number;
  last_at: ColumnType<string, Date | string, never>;
  records_hash: Buffer;
  hash: Buffer;
  sealed_at: Timestamp;
  trimmed_at: NullableTimestamp;
}

export interface SealingCheckTable {
  id: number;
  sealed: Buffer;
}

export type AuditRecord = Selectable<AuditTable>;
export type AuditPage = Selectable<AuditPageTable>;

export interface Database {
  domain: DomainTable;
  account: AccountTable;
  account_quota: AccountQuotaTable;
  domain_quota: QuotaTable;
  role: RoleTable;
  user: UserTable;
  api_key: ApiKeyTable;
  project_member: ProjectMemberTable;
  session: SessionTable;
  identity_provider: IdentityProviderTable;
  used_sign_in: UsedSignInTable;
  zone: ZoneTable;
  pod: PodTable;
  cluster: ClusterTable;
  host: HostTable;
  host_join_token: HostJoinTokenTable;
  host_certificate_authority: HostCertificateAuthorityTable;
  host_certificate: HostCertificateTable;
  primary_storage: PrimaryStorageTable;
  offering: OfferingTable;
  template: TemplateTable;
  template_copy: TemplateCopyTable;
  vm: VmTable;
  reservation: ReservationTable;
  host_usage: HostUsageTable;
  vm_usage: VmUsageTable;
  volume: VolumeTable;
  job: JobTable;
  job_step: JobStepTable;
  idempotency_key: IdempotencyKeyTable;
  api_token: ApiTokenTable;
  control_process: ControlProcessTable;
  event: EventTable;
  change: ChangeTable;
  feed_head: FeedHeadTable;
  audit: AuditTable;
  audit_page: AuditPageTable;
  sealing_check: SealingCheckTable;
}

export type Zone = Selectable<ZoneTable>;
export type Pod = Selectable<PodTable>;
export type Domain = Selectable<DomainTable>;
export type Account = Selectable<AccountTable>;
export type ProjectMember = Selectable<ProjectMemberTable>;
export type Quota = Selectable<QuotaTable>;
export type User = Selectable<UserTable>;
export type Role = Selectable<RoleTable>;
export type IdentityProvider = Selectable<IdentityProviderTable>;
export type Cluster = Selectable<ClusterTable>;
export type Host = Selectable<HostTable>;
export type HostJoinToken = Selectable<HostJoinTokenTable>;
export type HostCertificate = Selectable<HostCertificateTable>;
export type PrimaryStorage = Selectable<PrimaryStorageTable>;
export type Offering = Selectable<OfferingTable>;
export type Template = Selectable<TemplateTable>;
export type Vm = Selectable<VmTable>;
export type HostUsage = Selectable<HostUsageTable>;
export type VmUsage = Selectable<VmUsageTable>;
export type Job = Selectable<JobTable>;
export type JobStep = Selectable<JobStepTable>;
