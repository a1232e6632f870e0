import { VirtgraphError } from '../domain/errors.ts';
import type { Answer } from '../domain/job.ts';
import { parseCommandId, type WireCommand } from '../hosts/links.ts';
import { builder } from './builder.ts';
import { Command } from './command.ts';
import type { HostdContext } from './context.ts';

const Hypervisor = builder.enumType('Hypervisor', { values: ['FAKE', 'KVM', 'TCG'] as const });
const ObservedVmState = builder.enumType('ObservedVmState', {
  description: 'What a host sees of a VM.',
  values: ['ABSENT', 'CRASHED', 'PAUSED', 'RUNNING', 'STARTING', 'STOPPED'] as const,
});
const CommandErrorCode = builder.enumType('CommandErrorCode', {
  description: 'Why a host could not do a command.',
  values: [
    'CANCELLED',
    'DISK_FULL',
    'IMAGE_REFUSED',
    'INTERNAL',
    'NOT_FOUND',
    'QEMU_FAILED',
    'STALE_EPOCH',
    'TIMEOUT',
  ] as const,
});

const RegisterInput = builder.inputType('RegisterInput', {
  fields: (t) => ({
    name: t.string({ description: "Unique inside its cluster; by default the machine's name." }),
    joinToken: t.string({ description: 'A token of `createHostJoinToken`.' }),
  }),
});
const Registration = builder.objectRef<{ hostId: string; credential: string }>('Registration').implement({
  fields: (t) => ({
    hostId: t.exposeID('hostId'),
    credential: t.exposeString('credential', {
      description: 'Secret that this host authenticates with from now on. Shown once.',
    }),
  }),
});

const VmObservationInput = builder.inputType('VmObservationInput', {
  fields: (t) => ({
    vmId: t.id(),
    state: t.field({ type: ObservedVmState }),
    epoch: t.int({ description: 'Highest epoch that the host has seen for the VM.' }),
    reason: t.string({ required: false, description: 'For people: why it is so, for example `guest powered off`.' }),
  }),
});
const OpenSessionInput = builder.inputType('OpenSessionInput', {
  fields: (t) => ({
    hypervisor: t.field({ type: Hypervisor }),
    version: t.string(),
    capabilities: t.stringList({ description: 'Names of what this host can do, for example `vm.start`.' }),
    vcpusTotal: t.int(),
    memoryTotalMib: t.int(),
    vms: t.field({ type: [VmObservationInput], description: 'Every VM that this host knows of.' }),
  }),
});
const Session = builder.objectRef<{ sessionId: string; heartbeatMs: number; hostId: string }>('Session').implement({
  fields: (t) => ({
    sessionId: t.exposeID('sessionId'),
    heartbeatMs: t.exposeInt('heartbeatMs'),
    hostId: t.exposeID('hostId', { description: "The host's own id." }),
  }),
});

const VmUsageInput = builder.inputType('VmUsageInput', {
  description: 'Counters of one VM since its QEMU started.',
  fields: (t) => ({
    vmId: t.id(),
    cpuNs: t.field({ type: 'BigInt' }),
    memoryBytes: t.field({ type: 'BigInt' }),
    diskReadBytes: t.field({ type: 'BigInt' }),
    diskWriteBytes: t.field({ type: 'BigInt' }),
    networkReceiveBytes: t.field({
      type: 'BigInt',
      required: false,
      description: 'Null: the VM has no network interface whose traffic the host can count.',
    }),
    networkTransmitBytes: t.field({ type: 'BigInt', required: false }),
  }),
});
const HeartbeatInput = builder.inputType('HeartbeatInput', {
  fields: (t) => ({
    sessionId: t.id(),
    cpuLoad: t.float({ description: 'Busy share of all CPUs, 0 to 1.' }),
    memoryUsedMib: t.int(),
    vms: t.field({ type: [VmUsageInput] }),
  }),
});

const CommandErrorInput = builder.inputType('CommandErrorInput', {
  fields: (t) => ({ code: t.field({ type: CommandErrorCode }), message: t.string() }),
});
const CommandResultInput = builder.inputType('CommandResultInput', {
  fields: (t) => ({
    virtualBytes: t.field({
      type: 'BigInt',
      required: false,
      description: 'InspectImage: virtual size in bytes. PrepareTemplate: likewise.',
    }),
    fileBytes: t.field({ type: 'BigInt', required: false, description: 'InspectImage: size of the file in bytes.' }),
    sha256: t.string({ required: false, description: 'InspectImage: SHA-256 of the file.' }),
    base64: t.string({ required: false, description: 'Screenshot: PNG in base64. SerialLog: the bytes in base64.' }),
  }),
});
const CommandReportInput = builder.inputType('CommandReportInput', {
  fields: (t) => ({
    commandId: t.id(),
    error: t.field({ type: CommandErrorInput, required: false, description: 'Null: done.' }),
    result: t.field({
      type: CommandResultInput,
      required: false,
      description: 'Fields that only some commands answer.',
    }),
  }),
});
const ProgressInput = builder.inputType('ProgressInput', {
  fields: (t) => ({
    commandId: t.id(),
    done: t.field({ type: 'BigInt' }),
    total: t.field({ type: 'BigInt' }),
    unit: t.string({ description: 'What is counted, for example `bytes`.' }),
  }),
});

/** @throws VirtgraphError UNAUTHENTICATED before the host has joined */
function hostOf(context: HostdContext): { id: number } {
  if (!context.host)
    throw new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'Only `register` is open without a credential.' });
  return context.host;
}

builder.queryType({
  fields: (t) => ({
    protocolVersion: t.int({ description: 'Version of this protocol.', resolve: () => 1 }),
  }),
});

builder.mutationType({
  fields: (t) => ({
    register: t.field({
      type: Registration,
      description: 'Exchanges a join token for a credential. The only field open without a credential.',
      args: { input: t.arg({ type: RegisterInput }) },
      resolve: (_root, { input }, { sessions }) => sessions.register(input),
    }),
    openSession: t.field({
      type: Session,
      description: 'Starts a session, which ends any earlier one of this host.',
      args: { input: t.arg({ type: OpenSessionInput }) },
      resolve: (_root, { input }, context) =>
        context.sessions.open(hostOf(context), { ...input, vms: input.vms.map(observationOf) }),
    }),
    heartbeat: t.boolean({
      description: 'Says that the host lives. False: the session has ended, open another.',
      args: { input: t.arg({ type: HeartbeatInput }) },
      resolve: (_root, { input }, context) =>
        context.sessions.heartbeat(
          hostOf(context).id,
          String(input.sessionId),
          { cpuLoad: Math.min(1, Math.max(0, input.cpuLoad)), memoryUsedMib: input.memoryUsedMib },
          input.vms.map((vm) => ({
            ...vm,
            vmId: String(vm.vmId),
            networkReceiveBytes: vm.networkReceiveBytes ?? null,
            networkTransmitBytes: vm.networkTransmitBytes ?? null,
          })),
        ),
    }),
    reportCommands: t.boolean({
      description: 'Answers commands. Returns once all answers are durable; a host repeats a report that failed.',
      args: { reports: t.arg({ type: [CommandReportInput] }) },
      resolve: async (_root, { reports }, context) => {
        const host = hostOf(context);
        await Promise.all(reports.map((report) => answer(context, host.id, report)));
        return true;
      },
    }),
    reportProgress: t.boolean({
      description: 'Progress of commands under way, at most two a second for each.',
      args: { progress: t.arg({ type: [ProgressInput] }) },
      resolve: (_root, { progress }, context) => {
        const host = hostOf(context);
        for (const { commandId, done, total, unit } of progress) {
          const command = parseCommandId(String(commandId));
          if (command && context.links.isOpen(host.id, String(commandId)))
            context.progress.report(host.id, command.jobId, command.seq, { done, total, unit });
        }
        return true;
      },
    }),
    reportVms: t.boolean({
      description: 'VM states as they change.',
      args: { sessionId: t.arg.id(), vms: t.arg({ type: [VmObservationInput] }) },
      resolve: async (_root, { sessionId, vms }, context) => {
        const host = hostOf(context);
        if (!context.sessions.isCurrent(host.id, String(sessionId))) return false;
        await context.observations.some(host.id, String(sessionId), vms.map(observationOf));
        return true;
      },
    }),
    sendSerial: t.boolean({
      description:
        'The next piece of a watched serial log, in base64, and its offset in the log. False: nobody watches any more.',
      args: { commandId: t.arg.id(), offset: t.arg({ type: 'BigInt' }), base64: t.arg.string() },
      resolve: (_root, { commandId, offset, base64 }, context) =>
        context.agent.serialPiece(hostOf(context).id, String(commandId), {
          offset,
          bytes: Buffer.from(base64, 'base64'),
        }),
    }),
  }),
});

builder.subscriptionType({
  fields: (t) => ({
    commands: t.field({
      type: [Command],
      description: 'First every command still open, then each new one; several in a message when several are ready.',
      args: { sessionId: t.arg.id() },
      subscribe: (_root, { sessionId }, context) => {
        const host = hostOf(context);
        if (!context.sessions.isCurrent(host.id, String(sessionId)))
          throw new VirtgraphError({ code: 'CONFLICT', message: 'This session has ended. Open another.' });
        return context.links.attach(host.id, String(sessionId));
      },
      resolve: (batch) => batch as WireCommand[],
    }),
  }),
});

type ObservationInput = typeof VmObservationInput.$inferInput;
const observationOf = ({ vmId, state, epoch, reason }: ObservationInput) => ({
  vmId: String(vmId),
  state,
  epoch,
  reason: reason ?? null,
});

async function answer(
  context: HostdContext,
  hostId: number,
  report: typeof CommandReportInput.$inferInput,
): Promise<void> {
  const commandId = String(report.commandId);
  const error = report.error ?? null;
  const result = report.result ?? {};
  if (context.links.answered(hostId, commandId, result, error)) return;
  const command = parseCommandId(commandId);
  if (!command) {
    context.log.warn({ hostId, commandId }, 'a host answered a command that was never sent; ignored');
    return;
  }
  const told: Answer = error ? { ok: false, error } : { ok: true, result };
  await context.answer(hostId, command.jobId, command.seq, told);
  context.links.forget(hostId, commandId);
  context.progress.settle(command.jobId, command.seq);
}
