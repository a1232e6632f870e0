import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { removeFile } from '../storage/paths.ts';
import { type QmpClient, QmpError } from './qmp.ts';
import { readEnd } from './run-folder.ts';

const MAX_SCREENSHOT_BYTES = 64 * 1024 * 1024;

const Status = z.looseObject({ status: z.string() });
const Uuid = z.looseObject({ UUID: z.string() });
const BlockStats = z.array(
  z.looseObject({
    qdev: z.string().optional(),
    stats: z.looseObject({ rd_bytes: z.number(), wr_bytes: z.number() }),
  }),
);

/** QEMU's run state, such as `running`. */
export async function queryRunState(qmp: QmpClient): Promise<string> {
  return Status.parse(await qmp.execute('query-status')).status;
}

export async function queryUuid(qmp: QmpClient): Promise<string> {
  return Uuid.parse(await qmp.execute('query-uuid')).UUID;
}

/** What the guest has read from and written to its disks. */
export async function queryDiskBytes(qmp: QmpClient): Promise<{ read: bigint; written: bigint }> {
  const disks = BlockStats.parse(await qmp.execute('query-blockstats'));
  const sum = (field: 'rd_bytes' | 'wr_bytes'): bigint =>
    disks.reduce((total, { stats }) => total + BigInt(stats[field]), 0n);
  return { read: sum('rd_bytes'), written: sum('wr_bytes') };
}

/** A picture of the first screen, PNG. QEMU writes it into its own folder `run`. */
export async function takeScreenshot(qmp: QmpClient, run: string): Promise<Buffer> {
  const filename = `screen-${randomUUID()}.png`;
  try {
    await qmp.execute('screendump', { filename, format: 'png' });
    const picture = await readEnd(join(run, filename), MAX_SCREENSHOT_BYTES);
    if (!picture || picture.offset > 0) throw new QmpError('refused', 'QEMU drew no picture that can be read');
    return picture.bytes;
  } finally {
    await removeFile(join(run, filename));
  }
}
