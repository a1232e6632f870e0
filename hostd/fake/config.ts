import { z } from 'zod';

const ERROR_CODES = [
  'CANCELLED',
  'DISK_FULL',
  'IMAGE_REFUSED',
  'INTERNAL',
  'NOT_FOUND',
  'QEMU_FAILED',
  'STALE_EPOCH',
  'TIMEOUT',
] as const;

/** What happens to an operation. The first rule that fits, and has uses left, counts. */
const faultSchema = z.strictObject({
  /** Only for this VM. */
  vmId: z.string().optional(),
  /** Only for this file in the image folder. */
  fileName: z.string().optional(),
  /** Only for this volume. */
  volumeId: z.string().optional(),
  /** How long the operation takes, with progress. */
  delayMs: z.int().min(0).optional(),
  /** Fails with this code once the delay is over. */
  fail: z.enum(ERROR_CODES).optional(),
  message: z.string().optional(),
  /** Fits only this many times; by default always. */
  failTimes: z.int().min(1).optional(),
  /** Never ends by itself. */
  hang: z.boolean().optional(),
  /** The VM that was started crashes after this long. */
  crashAfterMs: z.int().min(0).optional(),
});

const faults = z.union([faultSchema.transform((fault) => [fault]), z.array(faultSchema)]).optional();

const configSchema = z.strictObject({
  facts: z
    .strictObject({
      version: z.string().optional(),
      capabilities: z.array(z.string()).optional(),
      vcpusTotal: z.int().min(1).optional(),
      memoryTotalMib: z.int().min(1).optional(),
    })
    .optional(),
  /** Images by file name; one that isn't named here is a 2 GiB disk in a 512 MiB file, its digest made of its name. */
  images: z
    .record(
      z.string(),
      z.strictObject({
        virtualBytes: z.int().min(0).optional(),
        fileBytes: z.int().min(0).optional(),
        sha256: z.string().optional(),
      }),
    )
    .optional(),
  inspectImage: faults,
  prepareTemplate: faults,
  createVolume: faults,
  deleteVolume: faults,
  startVm: faults,
  stopVm: faults,
  controlVm: faults,
  removeVm: faults,
  screenshot: faults,
  serialLog: faults,
  watchSerial: faults,
});

export type Fault = z.output<typeof faultSchema>;
/** As written by people: a fault may stand alone where a list of them may. */
export type FakeConfig = z.input<typeof configSchema>;
export type ParsedFakeConfig = z.output<typeof configSchema>;
export type FakeOperation = Exclude<keyof ParsedFakeConfig, 'facts' | 'images'>;

export class FakeConfigError extends Error {
  override readonly name = 'FakeConfigError';
}

/** Throws `FakeConfigError`, whose message names each place that is wrong. */
export function parseFakeConfig(config: unknown): ParsedFakeConfig {
  const { success, data, error } = configSchema.safeParse(config);
  if (success) return data;
  throw new FakeConfigError(`the fake's configuration is wrong:\n${z.prettifyError(error)}`);
}
