import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Ids } from '../db/ids.ts';
import type { Inventory } from '../db/inventory.ts';
import type { Sealer } from '../db/sealer.ts';
import type { Database } from '../db/tables.ts';
import type { Writer } from '../db/writer.ts';
import type { UserErrorData } from '../domain/errors.ts';
import type { Egress } from '../egress/egress.ts';
import type { PasswordHasher } from './password-hash.ts';
import type { SignInLimits } from './sign-in-limits.ts';

/** What every operation works with. */
export interface OpsContext {
  db: Kysely<Database>;
  writer: Writer;
  ids: Ids;
  inventory: Inventory;
  sealer: Sealer;
  passwords: PasswordHasher;
  signInLimits: SignInLimits;
  /** The way to whatever is outside. */
  egress: Egress;
  /** Where browsers reach us; known once we listen. */
  site: { publicUrl: string };
  /** The authority of hosts, as far as a join token names it. */
  authority: { readonly fingerprint: Buffer };
  /** Brings the inventory up to all that was committed before, wherever: nobody is refused for what is over. */
  catchUp: () => Promise<void>;
  log: Logger;
}

/** How a request came, for the audit trail; null: from within. */
export interface Via {
  address: string | null;
  requestId: string | null;
}
export const FROM_WITHIN: Via = { address: null, requestId: null };

/** What a mutation answers with: the row it is about, the job that carries it out, or why not. */
export interface Payload {
  id: number | null;
  jobId: number | null;
  errors: UserErrorData[];
}
