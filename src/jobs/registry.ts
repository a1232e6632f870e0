import { registerTemplate } from './template-register.ts';
import { createVm } from './vm-create.ts';
import { expungeVm } from './vm-expunge.ts';
import { destroyVm, pauseVm, rebootVm, recoverVm, resetVm, resumeVm, settleVm, startVm, stopVm } from './vm-power.ts';
import type { Workflow } from './workflow.ts';

/** Every workflow by the kind that stands in its jobs' rows. */
export const WORKFLOWS: Record<string, Workflow> = Object.fromEntries(
  [
    createVm,
    startVm,
    stopVm,
    rebootVm,
    resetVm,
    pauseVm,
    resumeVm,
    destroyVm,
    recoverVm,
    expungeVm,
    settleVm,
    registerTemplate,
  ].map((workflow) => [workflow.kind, workflow as Workflow]),
);

/** @throws Error for a kind that this version does not know */
export function workflowOf(kind: string): Workflow {
  const workflow = WORKFLOWS[kind];
  if (!workflow) throw new Error(`no workflow of kind ${kind}`);
  return workflow;
}
