import type { Kysely } from 'kysely';
import type { Database, IdentityProvider } from '../db/tables.ts';
import { domainAt, domainNames } from './sign-in.ts';

export type SignInProvider = Pick<IdentityProvider, 'uid' | 'name' | 'type'>;

const SHOWN = 50;

/** What a sign-in page offers, by name. None for a domain that is not there, as for one that has none. */
export const signInProvidersOf = (db: Kysely<Database>, domain: string): Promise<SignInProvider[]> =>
  db
    .selectFrom('identity_provider')
    .select(['uid', 'name', 'type'])
    .where('domain_id', '=', domainAt(domainNames(domain)))
    .where('wanted_state', '=', 'ENABLED')
    .where('deleted_at', 'is', null)
    .orderBy('name')
    .limit(SHOWN)
    .execute();
