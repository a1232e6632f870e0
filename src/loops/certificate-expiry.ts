import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import { emptyTransition, now, patch } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { hostEvent } from '../hosts/identities.ts';

const AT_ONCE = 500;
/** A host renews when a third of the time is left: at a sixth, something keeps it from doing so. */
const LEFT = 1 / 6;

/** Tells, once, of each certificate that will soon be over and that its host has not renewed. */
export async function warnOfExpiry(db: Kysely<Database>, writer: Writer): Promise<number> {
  const ending = await db
    .selectFrom('host_certificate as c')
    .innerJoin('host as h', 'h.id', 'c.host_id')
    .select(['c.id', 'c.host_id', 'c.not_after'])
    .where('h.deleted_at', 'is', null)
    .where('h.certificate_revoked_at', 'is', null)
    .whereRef('c.version', '=', 'h.certificate_floor')
    .where('c.warned_at', 'is', null)
    .where(
      sql<boolean>`TIMESTAMPDIFF(SECOND, NOW(6), c.not_after) < TIMESTAMPDIFF(SECOND, c.not_before, c.not_after) * ${sql.lit(LEFT)}`,
    )
    .orderBy('c.not_after')
    .limit(AT_ONCE)
    .execute();
  const outcomes = await Promise.all(
    ending.map(({ id, host_id, not_after }) =>
      writer.submit({
        ...emptyTransition(),
        writes: [patch('host_certificate', id, { warned_at: null }, { warned_at: now })],
        changes: [{ kind: 'host', id: host_id }],
        events: [
          {
            ...hostEvent(host_id, 'host.certificate_ends', []),
            actor: 'system',
            reason: `Its certificate ends at ${not_after} UTC and was not renewed: the host is not heard after that.`,
          },
        ],
      }),
    ),
  );
  return outcomes.filter(({ kind }) => kind === 'written').length;
}
