import type { Kysely } from 'kysely';
import type { Database } from '../db/tables.ts';

/** Of a VM: on which hosts it is, was last, and was seen last. */
export interface VmPlace {
  id: number;
  host_id: number | null;
  last_host_id: number | null;
  observed_host_id: number | null;
}

/**
 * Which of these VMs the host has never had anything to do with. A host that speaks of one that it has had before does
 * no wrong, for it knows it until it is told to remove it; it only changes nothing.
 */
export async function foreignVms(db: Kysely<Database>, hostId: number, vms: readonly VmPlace[]): Promise<Set<number>> {
  const unlike = vms.filter(
    (vm) => vm.host_id !== hostId && vm.last_host_id !== hostId && vm.observed_host_id !== hostId,
  );
  if (unlike.length === 0) return new Set();
  const ids = unlike.map(({ id }) => id);
  // A start that was rolled back leaves no trace in the VM; but a host was sent commands for it.
  const commanded = await db
    .selectFrom('job as j')
    .innerJoin('job_step as s', 's.job_id', 'j.id')
    .select('j.target_id')
    .distinct()
    .where('j.target_kind', '=', 'vm')
    .where('j.target_id', 'in', ids)
    .where('s.host_id', '=', hostId)
    .execute();
  return new Set(ids).difference(new Set(commanded.map((row) => row.target_id)));
}
