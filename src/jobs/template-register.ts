import { chargeAccount, insert, patch, type Settable, type Write } from '../db/transition.ts';
import type { CommandResult } from '../domain/job.ts';
import { type Charge, chargeOfTemplate } from '../domain/quota.ts';
import { TIMEOUT_MS } from './vm-context.ts';
import type { Effects, JobIdentity, Workflow } from './workflow.ts';

export interface TemplateRegisterContext {
  template: {
    id: number;
    uidHex: string;
    zoneId: number;
    name: string;
    fileName: string;
    format: 'QCOW2' | 'RAW';
  };
  hostId: number;
  maxVirtualBytes: number;
}

/** inspectImage: a host that has the file says what it is, or refuses it; nothing is copied yet. */
export const registerTemplate: Workflow<TemplateRegisterContext> = {
  kind: 'REGISTER_TEMPLATE',
  version: 1,
  steps: (c) => [
    {
      name: 'inspectImage',
      weight: 1,
      command: {
        name: 'inspectImage',
        command: 'InspectImageCommand',
        hostId: c.hostId,
        epoch: 0,
        timeoutMs: TIMEOUT_MS.copy,
        payload: {
          fileName: c.template.fileName,
          format: c.template.format,
          maxVirtualBytes: String(c.maxVirtualBytes),
        },
      },
      done: (_c, job, result) =>
        result.sha256 == null || result.virtualBytes == null
          ? end(c, job, { state: 'ERROR', state_reason: UNKNOWN_IMAGE }, UNKNOWN_IMAGE)
          : end(
              c,
              job,
              { state: 'READY', ...factsOf(result) },
              null,
              charged(job, { secondaryBytes: result.fileBytes ?? 0 }),
            ),
    },
  ],
  begin: (c, job) => ({
    writes: [
      insert('template', {
        id: c.template.id,
        uid: Buffer.from(c.template.uidHex, 'hex'),
        zone_id: c.template.zoneId,
        account_id: job.target.accountId,
        name: c.template.name,
        state: 'REGISTERING',
        format: c.template.format,
        file_name: c.template.fileName,
        active_job_id: job.id,
      }),
      ...charged(job, chargeOfTemplate(null)),
    ],
    changes: [{ kind: 'template', id: c.template.id }],
    events: [event(c, job, 'template.created', null, 'REGISTERING', job.reason)],
  }),
  succeeded: () => ({ writes: [], changes: [], events: [] }),
  failed: (c, job, error) => end(c, job, { state: 'ERROR', state_reason: error.message }, error.message),
};

/** The step was skipped, or its host answered nothing. Without size and checksum no VM can be made of it. */
const UNKNOWN_IMAGE = 'No host has said what is in the image.';

const factsOf = (result: CommandResult): Settable<'template'> => ({
  virtual_bytes: result.virtualBytes ?? null,
  file_bytes: result.fileBytes ?? null,
  sha256: result.sha256 ?? null,
});

/** What everybody may use counts nowhere. */
const charged = (job: JobIdentity, charge: Charge): Write[] =>
  job.target.accountId === null ? [] : [chargeAccount(job.target.accountId, charge)];

function end(
  c: TemplateRegisterContext,
  job: JobIdentity,
  set: Settable<'template'>,
  why: string | null,
  also: Write[] = [],
): Effects {
  const after = String(set.state);
  return {
    writes: [patch('template', c.template.id, { active_job_id: job.id }, { ...set, active_job_id: null }), ...also],
    changes: [{ kind: 'template', id: c.template.id }],
    events: [event(c, job, 'template.state', 'REGISTERING', after, why)],
  };
}

const event = (
  c: TemplateRegisterContext,
  job: JobIdentity,
  type: string,
  before: string | null,
  after: string,
  reason: string | null,
) => ({
  type,
  subject: { kind: 'template' as const, id: c.template.id },
  accountId: job.target.accountId,
  jobId: job.id,
  actor: job.actor,
  reason,
  changes: [{ field: 'state', before, after }],
});
