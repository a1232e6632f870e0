import type { Defaulted } from './column-types.ts';

/** How much an account, or a domain with all below it, may have (null: without a limit) and has. Jobs and operations write it. */
export interface QuotaTable {
  /** The account's or the domain's. */
  id: number;
  vms_used: Defaulted<number>;
  vms_cap: Defaulted<number | null>;
  vcpus_used: Defaulted<number>;
  vcpus_cap: Defaulted<number | null>;
  memory_used_mib: Defaulted<number>;
  memory_cap_mib: Defaulted<number | null>;
  volumes_used: Defaulted<number>;
  volumes_cap: Defaulted<number | null>;
  primary_bytes_used: Defaulted<number>;
  primary_bytes_cap: Defaulted<number | null>;
  templates_used: Defaulted<number>;
  templates_cap: Defaulted<number | null>;
  secondary_bytes_used: Defaulted<number>;
  secondary_bytes_cap: Defaulted<number | null>;
  /** Of the limits; what is used changes without it. */
  generation: Defaulted<number>;
}

export interface AccountQuotaTable extends QuotaTable {
  /** Of the account's domain: where it is counted. */
  path: string;
}
