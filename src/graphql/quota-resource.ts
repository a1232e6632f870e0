import { QUOTA_RESOURCES, type QuotaResource } from '../domain/quota.ts';
import { builder } from './builder.ts';

const DESCRIPTIONS: Record<QuotaResource, string> = {
  VMS: 'VMs, from their creation until they are expunged: stopped, destroyed and failed ones too.',
  VCPUS: 'vCPUs of those VMs, whether they run or not.',
  MEMORY_MIB: 'Memory of those VMs in MiB, whether they run or not.',
  VOLUMES: 'Disks.',
  PRIMARY_GIB: 'Sizes of the disks as VMs see them, in GiB.',
  TEMPLATES: 'Templates of its own. Those that everybody may use count nowhere.',
  SECONDARY_GIB: 'Sizes of the files of those templates, in GiB.',
};
export const QuotaResourceRef = builder.enumType('QuotaResource', {
  description: 'What quotas count.',
  values: Object.fromEntries(
    QUOTA_RESOURCES.map((resource) => [resource, { description: DESCRIPTIONS[resource] }]),
  ) as Record<QuotaResource, { description: string }>,
});
