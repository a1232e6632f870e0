import type { WantedState } from '../domain/host-state.ts';
import type { ProviderType } from '../domain/identity-provider.ts';
import type { Defaulted, Named, Timestamp } from './column-types.ts';

export interface IdentityProviderTable extends Named {
  domain_id: number;
  account_id: number;
  type: ProviderType;
  /** JSON: OidcSettings or LdapSettings. */
  settings: string;
  /** Sealed. */
  secret: Defaulted<Buffer | null>;
  /** JSON: MappedRole[] */
  role_mapping: string;
  wanted_state: Defaulted<WantedState>;
}

export interface UsedSignInTable {
  id: number;
  state_hash: Buffer;
  used_at: Timestamp;
}
