import { type Absent, fewerThan, now, patch, type Write } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { OpsContext } from './context.ts';

/** Members of one project; they go with it in one transaction. */
export const MEMBERS_MAX = 1_000;
/** Projects of one user, and of one account: each request of theirs reads all, and each list asks for all. */
export const PROJECTS_MAX = 100;

interface Bound {
  column: 'account_id' | 'member_account_id' | 'member_user_id';
  id: number;
  max: number;
  name: string;
  path: string;
}
type Who = { table: 'account' | 'user'; id: number; name: string };

/**
 * That there is room for another membership. Those who would count at the same time wait for each other's locks: of the
 * project, and of whom it is about, who are there until it is committed.
 *
 * @throws VirtgraphError INVALID_INPUT
 */
export async function oneMoreMember(
  { db }: OpsContext,
  project: { id: number; name: string },
  who: Who,
): Promise<Write[]> {
  const column = who.table === 'account' ? 'member_account_id' : 'member_user_id';
  const bounds: Bound[] = [
    { column: 'account_id', id: project.id, max: MEMBERS_MAX, name: project.name, path: 'projectId' },
    { column, id: who.id, max: PROJECTS_MAX, name: who.name, path: who.table === 'account' ? 'accountId' : 'userId' },
  ];
  for (const { column, id, max, name, path } of bounds) {
    const query = db.selectFrom('project_member').where(column, '=', id).where('deleted_at', 'is', null);
    const { n } = await query.select((eb) => eb.fn.countAll<number>().as('n')).executeTakeFirstOrThrow();
    if (Number(n) < max) continue;
    const what = path === 'projectId' ? `has ${max} members` : `shares ${max} projects`;
    throw new VirtgraphError({
      code: 'INVALID_INPUT',
      message: `${name} ${what}: there can be no more.`,
      path: [path],
    });
  }
  return [
    patch('account', project.id, { deleted_at: null }, { updated_at: now }, 'gone'),
    patch(who.table as 'account', who.id, { deleted_at: null }, { updated_at: now }, 'gone'),
    ...bounds.map(({ column, id, max }): Absent => fewerThan('project_member', column, id, max)),
  ];
}
