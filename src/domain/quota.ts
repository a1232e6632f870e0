import { type Actor, domainsOf, rightsOf, sees, type Tenancy } from './authorize.ts';

/** What is counted, by the names that a charge has; bytes are told to people in GiB. */
export const QUOTA_RESOURCES = [
  'VMS',
  'VCPUS',
  'MEMORY_MIB',
  'VOLUMES',
  'PRIMARY_GIB',
  'TEMPLATES',
  'SECONDARY_GIB',
] as const;
export type QuotaResource = (typeof QUOTA_RESOURCES)[number];

const GIB = 2 ** 30;
const COUNT_MAX = 2 ** 31 - 1;
/** In bytes still below 2^53. */
const GIB_MAX = 2 ** 23 - 1;

interface ResourceFacts {
  /** Its name in a charge. */
  amount: string;
  /** Columns of `account_quota` and `domain_quota`. */
  used: string;
  cap: string;
  /** How many of the column's are one of people's. */
  per: number;
  /** The largest limit, as people give it. */
  max: number;
  /** After a number, in a message. */
  unit: string;
}

export const QUOTA = {
  VMS: { amount: 'vms', used: 'vms_used', cap: 'vms_cap', per: 1, max: COUNT_MAX, unit: 'VMs' },
  VCPUS: { amount: 'vcpus', used: 'vcpus_used', cap: 'vcpus_cap', per: 1, max: COUNT_MAX, unit: 'vCPUs' },
  MEMORY_MIB: {
    amount: 'memoryMib',
    used: 'memory_used_mib',
    cap: 'memory_cap_mib',
    per: 1,
    max: 2 ** 40,
    unit: 'MiB of memory',
  },
  VOLUMES: { amount: 'volumes', used: 'volumes_used', cap: 'volumes_cap', per: 1, max: COUNT_MAX, unit: 'volumes' },
  PRIMARY_GIB: {
    amount: 'primaryBytes',
    used: 'primary_bytes_used',
    cap: 'primary_bytes_cap',
    per: GIB,
    max: GIB_MAX,
    unit: 'GiB of primary storage',
  },
  TEMPLATES: {
    amount: 'templates',
    used: 'templates_used',
    cap: 'templates_cap',
    per: 1,
    max: COUNT_MAX,
    unit: 'templates',
  },
  SECONDARY_GIB: {
    amount: 'secondaryBytes',
    used: 'secondary_bytes_used',
    cap: 'secondary_bytes_cap',
    per: GIB,
    max: GIB_MAX,
    unit: 'GiB of secondary storage',
  },
} as const satisfies Record<QuotaResource, ResourceFacts>;

type Facts = (typeof QUOTA)[QuotaResource];
export type Charged = Facts['amount'];
/** What something takes of its account's quota and of every domain's above; negative: gives back. */
export type Charge = Partial<Record<Charged, number>>;

/** A row of `account_quota` or `domain_quota`. */
export type QuotaRow = { id: number; generation: number } & Record<Facts['used'], number> &
  Record<Facts['cap'], number | null>;

export type QuotaOwner = { kind: 'account' | 'domain'; id: number };
export type QuotaTable = 'account_quota' | 'domain_quota';
export const quotaTable = ({ kind }: QuotaOwner): QuotaTable => `${kind}_quota`;

/** A quota, then those above it up to the root's. */
export type QuotaPath = readonly [QuotaOwner, ...QuotaOwner[]];

/** Whose quotas an account's things count in: its own first, then each domain's up to the root. */
export const quotaOwners = (accountId: number, domainPath: string): QuotaPath => [
  { kind: 'account', id: accountId },
  ...domainOwners(domainPath),
];
/** The same for a domain: its own first. */
export const domainOwners = (domainPath: string): QuotaPath =>
  domainsOf(domainPath)
    .reverse()
    .map((id): QuotaOwner => ({ kind: 'domain', id })) as [QuotaOwner, ...QuotaOwner[]];

/** @throws Error for an account that nobody knows: whoever writes has asked for it before */
export function ownersOf(accountId: number, tenancy: Tenancy): QuotaPath {
  const path = tenancy.domainPathOf(accountId);
  if (path === undefined) throw new Error(`account ${accountId} is charged and not known`);
  return quotaOwners(accountId, path);
}

/** A limit that something does not fit under, in people's units. */
export interface QuotaExcess {
  resource: QuotaResource;
  limit: number;
  used: number;
  asked: number;
}

/** What of a charge does not fit, beside what others are about to take; null: all of it does. */
export function excessOf(row: QuotaRow, charge: Charge, pending: Charge = {}): QuotaExcess | null {
  for (const resource of QUOTA_RESOURCES) {
    const { amount, used, cap, per } = QUOTA[resource];
    const asked = charge[amount] ?? 0;
    const limit = row[cap];
    if (asked <= 0 || limit === null) continue;
    const taken = row[used] + Math.max(0, pending[amount] ?? 0);
    if (taken + asked > limit) return { resource, limit: limit / per, used: taken / per, asked: asked / per };
  }
  return null;
}

/** `10 of 10 VMs; this needs 1 more` */
export const excessText = ({ resource, limit, used, asked }: QuotaExcess): string =>
  `${readable(used)} of ${readable(limit)} ${QUOTA[resource].unit}; this needs ${readable(asked)} more`;

const readable = (n: number): string => (Number.isInteger(n) ? String(n) : n.toFixed(2));

/** One resource as the graph shows it, in people's units. Null: without a limit. */
export interface ResourceUsage {
  resource: QuotaResource;
  limit: number | null;
  used: number;
  /** The least limit of the path upward. */
  effectiveLimit: number | null;
  /** The least that is left on the path upward. */
  available: number | null;
}

/** @param path the quota itself, then those above it */
export function usageOf(path: readonly [QuotaRow, ...QuotaRow[]]): ResourceUsage[] {
  return QUOTA_RESOURCES.map((resource) => {
    const { used, cap, per } = QUOTA[resource];
    const limited = path.filter((row) => row[cap] !== null);
    const least = (of: (row: QuotaRow) => number): number | null =>
      limited.length === 0 ? null : Math.min(...limited.map(of)) / per;
    const limit = path[0][cap];
    return {
      resource,
      limit: limit === null ? null : limit / per,
      used: path[0][used] / per,
      effectiveLimit: least((row) => row[cap]!),
      available: least((row) => Math.max(0, row[cap]! - row[used])),
    };
  });
}

export const minus = (charge: Charge): Charge =>
  Object.fromEntries(Object.entries(charge).map(([amount, n]) => [amount, -n]));

export const chargeOfVm = (vcpus: number, memoryMib: number): Charge => ({ vms: 1, vcpus, memoryMib });
export const chargeOfVolume = (bytes: number): Charge => ({ volumes: 1, primaryBytes: bytes });
/** @param bytes of its file; null until a host has looked at it */
export const chargeOfTemplate = (bytes: number | null): Charge => ({ templates: 1, secondaryBytes: bytes ?? 0 });
export const together = (a: Charge, b: Charge): Charge => {
  const sum: Charge = { ...a };
  for (const [amount, n] of Object.entries(b) as [Charged, number][]) sum[amount] = (sum[amount] ?? 0) + n;
  return sum;
};

/**
 * Whether the numbers of a quota are the actor's to know. Who sees his own domain only because his account stands in it
 * would learn from them what his neighbours have.
 */
export function seesQuota(actor: Actor, owner: QuotaOwner, domainPath: string | undefined, tenancy: Tenancy): boolean {
  if (owner.kind === 'account') return sees(actor, 'account', { id: owner.id }, tenancy);
  if (domainPath === undefined || rightsOf(actor).reach === 'ACCOUNT') return false;
  return sees(actor, 'domain', { id: owner.id, path: domainPath }, tenancy);
}
