import { z } from 'zod';
import { hasControlCharacters, nameProblem } from '../domain/name.ts';

/**
 * What each mutation takes beyond what GraphQL's types already check. `null` and absent mean the same: not given.
 * The GraphQL inputs have the same fields; test/repo compares them.
 */

const text = (max: number) =>
  z
    .string()
    .refine((value) => value.isWellFormed(), 'Holds half of a surrogate pair.')
    .refine((value) => [...value].length <= max, `At most ${max} characters.`);
const name = z.string().superRefine((value, context) => {
  const problem = nameProblem(value);
  if (problem) context.addIssue({ code: 'custom', message: problem });
});
const id = z.string();
const count = (min: number, max: number, unit: string) =>
  z.number().int().min(min, `At least ${min}${unit}.`).max(max, `At most ${max}${unit}.`);
const absolutePath = text(1024)
  .refine((value) => value.startsWith('/'), 'Must be an absolute path.')
  .refine((value) => !hasControlCharacters(value), 'May not hold control characters.')
  .refine((value) => !value.split('/').includes('..'), 'May not hold `..`.');
const fileName = text(255).regex(
  /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
  'A file name of letters, digits, dots, dashes and underscores.',
);
const overcommit = z.number().min(0.1, 'At least 0.1.').max(32, 'At most 32.');

/** On every mutation. */
const base = {
  idempotencyKey: text(128).min(1, 'May not be empty.').nullish(),
  reason: text(1024).nullish(),
};
const expectedGeneration = z.number().int().nullish();
const only = <T extends z.ZodRawShape>(shape: T) => z.object({ ...base, ...shape });
const byId = only({ id });
const update = <T extends z.ZodRawShape>(shape: T) => only({ id, expectedGeneration, ...shape });

const vcpus = count(1, 256, ' vCPUs');
const memoryMib = count(64, 4_194_304, ' MiB');
const diskGib = count(1, 65_536, ' GiB');

export const INPUTS = {
  createZone: only({ name }),
  updateZone: update({ name: name.nullish() }),
  createPod: only({ zoneId: id, name }),
  updatePod: update({ name: name.nullish() }),
  createCluster: only({
    podId: id,
    name,
    vcpuOvercommit: overcommit.nullish(),
    memoryOvercommit: overcommit.nullish(),
  }),
  updateCluster: update({
    name: name.nullish(),
    vcpuOvercommit: overcommit.nullish(),
    memoryOvercommit: overcommit.nullish(),
  }),
  createHostJoinToken: only({
    clusterId: id,
    maxHosts: count(1, 10_000, ' hosts').nullish(),
    expiresInMs: count(1_000, 604_800_000, ' ms').nullish(),
  }),
  updateHost: update({ name: name.nullish() }),
  createPrimaryStorage: only({ clusterId: id, name, path: absolutePath, capacityGib: count(1, 1_048_576, ' GiB') }),
  updatePrimaryStorage: update({ name: name.nullish(), capacityGib: count(1, 1_048_576, ' GiB').nullish() }),
  createOffering: only({ name, vcpus, memoryMib, diskGib: diskGib.nullish() }),
  updateOffering: update({ name: name.nullish() }),
  registerTemplate: only({ zoneId: id, name, fileName, format: z.enum(['QCOW2', 'RAW']) }),
  updateTemplate: update({ name: name.nullish() }),

  /** enableX, disableX and deleteX of every kind above take this. */
  byId,

  createVm: only({
    name,
    description: text(4096).nullish(),
    zoneId: id,
    clusterId: id.nullish(),
    hostId: id.nullish(),
    offeringId: id,
    templateId: id,
    start: z.boolean().nullish(),
  }),
  updateVm: update({
    name: name.nullish(),
    description: text(4096).nullish(),
    /** Another size, while the VM is stopped. */
    offeringId: id.nullish(),
  }),
  startVm: only({ id, clusterId: id.nullish(), hostId: id.nullish() }),
  stopVm: only({
    id,
    force: z.boolean().nullish(),
    timeoutMs: count(1_000, 3_600_000, ' ms').nullish(),
    forceAfterTimeout: z.boolean().nullish(),
  }),
  rebootVm: only({ id, timeoutMs: count(1_000, 3_600_000, ' ms').nullish(), forceAfterTimeout: z.boolean().nullish() }),
  resetVm: byId,
  pauseVm: byId,
  resumeVm: byId,
  destroyVm: byId,
  recoverVm: byId,
  expungeVm: byId,

  cancelJob: byId,
  retryJob: byId,
  resolveJob: only({ id, resolution: z.enum(['RETRY_STEP', 'SKIP_STEP', 'ROLL_BACK']) }),
};

export type Inputs = { [K in keyof typeof INPUTS]: z.infer<(typeof INPUTS)[K]> };
export type ById = Inputs['byId'];

export const explainPlacementInput = z.object({
  zoneId: id,
  clusterId: id.nullish(),
  hostId: id.nullish(),
  offeringId: id,
  templateId: id.nullish(),
});
export type ExplainPlacementInput = z.infer<typeof explainPlacementInput>;
