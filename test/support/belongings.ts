import { sql } from 'kysely';
import { encodeId, RESOURCE_KINDS } from '../../src/domain/ids.ts';
import type { Ids } from '../repo/authorization-matrix.ts';
import type { TestDatabase } from './database.ts';
import {
  insertAccount,
  insertApiKey,
  insertIdentityProvider,
  insertMember,
  insertRole,
  insertSession,
  insertUser,
  ROLE,
} from './tenants.ts';
import { insertJob, insertTemplate, insertVm, insertVolume, type Placed, type World } from './world.ts';

/** A VM with its volume, job, event and template of an account, on what the operator has. */
export async function belongings({ db }: TestDatabase, world: World, domain: Placed, account: Placed): Promise<Ids> {
  const owned = { account_id: account.id };
  const template = await insertTemplate(db, world.zone, owned);
  const vm = await insertVm(db, { ...world, template }, { ...owned, name: 'web' });
  const volume = await insertVolume(db, world, vm, owned);
  const job = await insertJob(db, vm, { ...owned, state: 'SUCCEEDED', finished_at: new Date() });
  await db.updateTable('feed_head').set({ seq: sql`seq + 1` }).execute();
  const about = { subject_kind: 'vm' as const, subject_id: vm.id, job_id: job.id, ...owned };
  const { seq } = await db.selectFrom('feed_head').select('seq').executeTakeFirstOrThrow();
  await db
    .insertInto('event')
    .values({ seq, type: 'vm.state', ...about, actor: 'root', reason: null, changes: '[]' })
    .execute();
  const role = await insertRole(db);
  const user = await insertUser(db, account, role.id);
  const project = await insertAccount(db, domain, { type: 'PROJECT' });
  const project_member = await insertMember(db, project, { account }, ROLE.user);
  const tenants = {
    domain,
    account,
    role,
    user,
    api_key: await insertApiKey(db, user),
    session: await insertSession(db, user),
    project_member,
    identity_provider: await insertIdentityProvider(db, { domain, account, role }),
  };
  const { zone, pod, cluster, storage, offering, hosts } = world;
  const rows = {
    ...tenants,
    zone,
    pod,
    cluster,
    primary_storage: storage,
    offering,
    host: hosts[0]!,
    template,
    vm,
    volume,
    job,
  };
  return Object.fromEntries(RESOURCE_KINDS.map((kind) => [kind, encodeId(kind, rows[kind].uid)])) as Ids;
}
