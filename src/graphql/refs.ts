import type { ResourceKind } from '../domain/ids.ts';
import { builder } from './builder.ts';
import type { QuotaView } from './quota-read.ts';
import type {
  AccountRow,
  ApiKeyRow,
  AuditRow,
  ClusterRow,
  DomainRow,
  EventRow,
  HostRow,
  IdentityProviderRow,
  JobRow,
  OfferingRow,
  PodRow,
  PrimaryStorageRow,
  ProjectMemberRow,
  RoleRow,
  SessionRow,
  TemplateRow,
  UserRow,
  VmRow,
  VolumeRow,
  ZoneRow,
} from './rows.ts';

/** The types of the graph by name, apart from their fields: they all refer to one another. */
export const ZoneRef = builder.objectRef<ZoneRow>('Zone');
export const PodRef = builder.objectRef<PodRow>('Pod');
export const ClusterRef = builder.objectRef<ClusterRow>('Cluster');
export const HostRef = builder.objectRef<HostRow>('Host');
export const PrimaryStorageRef = builder.objectRef<PrimaryStorageRow>('PrimaryStorage');
export const OfferingRef = builder.objectRef<OfferingRow>('Offering');
export const TemplateRef = builder.objectRef<TemplateRow>('Template');
export const VmRef = builder.objectRef<VmRow>('Vm');
export const VolumeRef = builder.objectRef<VolumeRow>('Volume');
export const JobRef = builder.objectRef<JobRow>('Job');
export const EventRef = builder.objectRef<EventRow>('Event');
export const AuditRecordRef = builder.objectRef<AuditRow>('AuditRecord');
export const DomainRef = builder.objectRef<DomainRow>('Domain');
export const AccountRef = builder.objectRef<AccountRow>('Account');
export const UserRef = builder.objectRef<UserRow>('User');
export const RoleRef = builder.objectRef<RoleRow>('Role');
export const ApiKeyRef = builder.objectRef<ApiKeyRow>('ApiKey');
export const QuotaRef = builder.objectRef<QuotaView>('Quota');

export const ProjectMemberRef = builder.objectRef<ProjectMemberRow>('ProjectMember');
export const SessionRef = builder.objectRef<SessionRow>('Session');
export const IdentityProviderRef = builder.objectRef<IdentityProviderRow>('IdentityProvider');

export const REF_OF = {
  zone: ZoneRef,
  pod: PodRef,
  cluster: ClusterRef,
  host: HostRef,
  primary_storage: PrimaryStorageRef,
  offering: OfferingRef,
  template: TemplateRef,
  vm: VmRef,
  volume: VolumeRef,
  job: JobRef,
  domain: DomainRef,
  account: AccountRef,
  user: UserRef,
  role: RoleRef,
  api_key: ApiKeyRef,
  project_member: ProjectMemberRef,
  session: SessionRef,
  identity_provider: IdentityProviderRef,
} as const satisfies Record<ResourceKind, unknown>;
