import { type Kysely, sql } from 'kysely';
import type { Membership } from '../domain/authorize.ts';
import { both, type Reach, type Rights, rightsOfRole } from '../domain/permission.ts';
import type { Database } from './tables.ts';

export interface Memberships {
  projects: ReadonlyMap<number, Membership>;
  /** Of the roles there. */
  roleIds: number[];
}

interface MemberRow {
  member_id: number;
  project_id: number;
  path: string;
  /** The user himself is the member, not all of his account. */
  by_name: 0 | 1;
  role_id: number;
  reach: Reach;
  rules: string;
}

/**
 * What a user may do in projects that are enabled, with all domains above them. Who is a member by name has the role
 * there as it is; who is one by his account has no more of it than he has at home, so that someone who may only read
 * there does not operate here. Whoever is both is a member by name.
 *
 * @param home what the user has in his own account
 * @param narrowing what an API key leaves of any role; null: all
 */
export async function membershipsOf(
  db: Kysely<Database>,
  user: { id: number; accountId: number },
  home: Rights,
  narrowing: Rights | null,
): Promise<Memberships> {
  const { rows } = await sql<MemberRow>`
    select m.id as member_id, m.account_id as project_id, domain.path, m.member_user_id is not null as by_name,
      role.id as role_id, role.reach, role.rules
    from project_member as m
    inner join account on account.id = m.account_id and account.deleted_at is null
      and account.wanted_state = 'ENABLED'
    inner join domain on domain.id = account.domain_id
    inner join role on role.id = m.role_id
    where m.deleted_at is null and (m.member_user_id = ${user.id} or m.member_account_id = ${user.accountId})
      and not exists (
        select 1 from domain as above
        where domain.path like concat(above.path, '%')
          and (above.deleted_at is not null or above.wanted_state <> 'ENABLED'))
    order by by_name`.execute(db);
  // By name comes last, and stays.
  const projects = new Map<number, Membership>();
  for (const { member_id, project_id, path, by_name, role_id, reach, rules } of rows) {
    const given = rightsOfRole({ id: role_id, reach, rules });
    const own = by_name ? given : both(given, home);
    const { permissions } = narrowing ? both(own, narrowing) : own;
    projects.set(project_id, { memberId: member_id, domainPath: path, permissions });
  }
  return { projects, roleIds: rows.map(({ role_id }) => role_id) };
}
