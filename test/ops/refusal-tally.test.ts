import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RefusalTally } from '../../src/ops/refusal-tally.ts';
import { ADMIN, openCore } from '../support/core.ts';
import { freshDatabase } from '../support/database.ts';

describe('refusals that come again and again', () => {
  it('are recorded one by one at first, then at each doubling, and anew each minute with what was left untold', () => {
    let now = 0;
    const tally = new RefusalTally(() => now);
    const recorded = Array.from({ length: 1_000 }, () => tally.count('sort')).filter((one) => one.recorded);
    assert.equal(recorded.length, 50 + 4);
    assert.deepEqual(
      recorded.slice(49).map(({ standsFor }) => standsFor),
      [
        null,
        { before: 50, after: 100 },
        { before: 100, after: 200 },
        { before: 200, after: 400 },
        { before: 400, after: 800 },
      ],
    );
    assert.deepEqual(tally.count('another'), { recorded: true, standsFor: null });
    now = 60_000;
    assert.deepEqual(tally.count('sort'), { recorded: true, standsFor: { before: 800, after: 1_000 } });
    assert.deepEqual(tally.count('sort'), { recorded: true, standsFor: null });
  });

  it('do not fill the audit trail, whatever ids they name, and each is answered', async (t) => {
    const database = await freshDatabase();
    const core = await openCore(database.url);
    t.after(async () => {
      await core.close();
      await database.close();
    });
    for (let i = 0; i < 120; i++) {
      const id = `vm_0${String(i).padStart(25, '0')}`;
      const { errors } = await core.ops.stopVm(ADMIN, { id });
      assert.equal(errors[0]?.code, 'NOT_FOUND');
    }
    const records = await database.db.selectFrom('audit').select(['outcome', 'changes']).orderBy('seq').execute();
    assert.equal(records.length, 51);
    assert.deepEqual(JSON.parse(records[50]!.changes), [{ field: 'refusals', before: '50', after: '100' }]);
  });
});
