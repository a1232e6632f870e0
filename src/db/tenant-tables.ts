import type { ColumnType } from 'kysely';
import type { AccountType } from '../domain/authorize.ts';
import type { WantedState } from '../domain/host-state.ts';
import type { Reach } from '../domain/permission.ts';
import type { SignInMethod } from '../domain/session.ts';
import type { Defaulted, Named, NullableTimestamp, Timestamp } from './column-types.ts';

export interface DomainTable extends Named {
  parent_id: number | null;
  /** Ids from the root down, each between slashes. */
  path: string;
  require_second_factor: Defaulted<number>;
  wanted_state: Defaulted<WantedState>;
}

export interface AccountTable extends Named {
  domain_id: number;
  type: Defaulted<AccountType>;
  wanted_state: Defaulted<WantedState>;
}

export interface RoleTable extends Named {
  reach: Reach;
  /** JSON: Rule[]; of a built-in role they are in domain/permission.ts. */
  rules: string;
  /** 0 or 1. */
  built_in: Defaulted<number>;
  wanted_state: Defaulted<WantedState>;
}

export interface UserTable extends Named {
  account_id: number;
  role_id: number;
  /** Where he is known, and by what; null: here alone. */
  identity_provider_id: Defaulted<number | null>;
  external_subject: Defaulted<string | null>;
  wanted_state: Defaulted<WantedState>;
  password_hash: Defaulted<string | null>;
  password_changed_at: NullableTimestamp;
  /** Sealed; a second factor once `totp_confirmed_at` is set. */
  totp_seed: Defaulted<Buffer | null>;
  totp_confirmed_at: NullableTimestamp;
  /** The last that was used: neither it nor one before it is taken again. */
  totp_step: Defaulted<number | null>;
  recovery_hashes: Defaulted<Buffer | null>;
}

/** `last_used_at` of keys and sessions is written by `CredentialUse`. */
export interface SessionTable {
  id: number;
  uid: Buffer;
  user_id: number;
  account_id: number;
  token_hash: Buffer;
  how: SignInMethod;
  second_factor: Defaulted<number>;
  address: string | null;
  user_agent: string | null;
  last_used_at: Timestamp;
  expires_at: ColumnType<string, Date | string, Date | string>;
  created_at: Timestamp;
  updated_at: Timestamp;
  deleted_at: NullableTimestamp;
}

export interface ProjectMemberTable {
  id: number;
  uid: Buffer;
  /** The project. */
  account_id: number;
  /** All users of an account, or one user. */
  member_account_id: number | null;
  member_user_id: number | null;
  role_id: number;
  generation: Defaulted<number>;
  created_at: Timestamp;
  updated_at: Timestamp;
  deleted_at: NullableTimestamp;
}

export interface ApiKeyTable {
  id: number;
  uid: Buffer;
  user_id: number;
  /** The user's. */
  account_id: number;
  /** Narrower than the user's. */
  role_id: number | null;
  name: string;
  key_hash: Buffer;
  expires_at: NullableTimestamp;
  last_used_at: NullableTimestamp;
  created_at: Timestamp;
  updated_at: Timestamp;
  deleted_at: NullableTimestamp;
}
