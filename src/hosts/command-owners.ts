import DataLoader from 'dataloader';
import type { Kysely } from 'kysely';
import type { Database } from '../db/tables.ts';
import { commandIdOf } from './links.ts';

interface Step {
  jobId: number;
  seq: number;
}

/** Which host a command was given to, for the ids that are not open here: those of long ago, and forged ones. */
export class CommandOwners {
  readonly #loader: DataLoader<Step, number | null, string>;

  constructor(db: Kysely<Database>) {
    this.#loader = new DataLoader<Step, number | null, string>((steps) => readOwners(db, steps), {
      cache: false,
      cacheKeyFn: ({ jobId, seq }) => commandIdOf(jobId, seq),
    });
  }

  /** @returns whether it is known to be another's; a command that is not known at all is nobody's */
  async isAnothers(hostId: number, step: Step): Promise<boolean> {
    const owner = await this.#loader.load(step);
    return owner !== null && owner !== hostId;
  }
}

async function readOwners(db: Kysely<Database>, steps: readonly Step[]): Promise<(number | null)[]> {
  const rows = await db
    .selectFrom('job_step')
    .select(['job_id', 'seq', 'host_id'])
    .where((eb) =>
      eb(
        eb.refTuple('job_id', 'seq'),
        'in',
        steps.map(({ jobId, seq }) => eb.tuple(jobId, seq)),
      ),
    )
    .execute();
  const owners = new Map(rows.map((row) => [commandIdOf(row.job_id, row.seq), row.host_id]));
  return steps.map(({ jobId, seq }) => owners.get(commandIdOf(jobId, seq)) ?? null);
}
