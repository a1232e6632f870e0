import { VirtgraphError } from '../domain/errors.ts';
import type { Answer } from '../domain/job.ts';
import type { KnownHost, Registered } from '../hosts/identities.ts';
import { parseCommandId, type WireCommand } from '../hosts/links.ts';
import { type HostCaller, listed, ofOthers } from '../hosts/refusals.ts';
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
    joinToken: t.string({
      description: 'The secret of a token of `createHostJoinToken`: what stands before its dot.',
    }),
    certificateRequest: t.string({
      description:
        'PKCS #10 in PEM, signed by an ECDSA key on P-256 that this host has made and keeps. Nothing but the key is taken from it.',
    }),
  }),
});
const Registration = builder.objectRef<Registered>('Registration').implement({
  fields: (t) => ({
    hostId: t.exposeID('hostId'),
    certificate: t.exposeString('certificate', {
      description: 'What this host shows from now on, in PEM.',
    }),
    authority: t.exposeString('authority', {
      description: 'The certificate, in PEM, of the authority that has issued it, and every control plane its own.',
    }),
  }),
});
const Renewal = builder.objectRef<Omit<Registered, 'hostId'>>('Renewal').implement({
  fields: (t) => ({
    certificate: t.exposeString('certificate', { description: 'What this host may show from now on, in PEM.' }),
    authority: t.exposeString('authority', { description: 'The certificate of the authority, in PEM.' }),
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
function hostOf(context: HostdContext): KnownHost {
  if (!context.host)
    throw new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'Only `register` is open without a certificate.' });
  return context.host;
}

const callerOf = (context: HostdContext): HostCaller => ({ ...hostOf(context), address: context.address });
const refused = (context: HostdContext, message: string, what: string): Promise<VirtgraphError> =>
  context.refusals.message(callerOf(context), message, what);

/**
 * Who speaks, in a session that he says is his.
 *
 * @throws VirtgraphError UNAUTHENTICATED; FORBIDDEN for a session of another
 */
async function sessionOf(context: HostdContext, message: string, sessionId: string): Promise<KnownHost> {
  const host = hostOf(context);
  if (!context.sessions.isCurrent(host.id, sessionId) && context.sessions.isAnothers(host.id, sessionId))
    throw await refused(context, message, 'a session of another host');
  return host;
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
      description:
        'Exchanges a join token for a certificate. The only field open without one. Asked again with the same token and key, it answers the same.',
      args: { input: t.arg({ type: RegisterInput }) },
      resolve: (_root, { input }, { identities, address }) => identities.register(input, address),
    }),
    renewCertificate: t.field({
      type: Renewal,
      description:
        'Issues the certificate that follows the one of this connection, which stays good until the new one is used or it expires itself. Asked again with the same key, it answers the same.',
      args: {
        certificateRequest: t.arg.string({ description: 'As in `RegisterInput`, by a key that was never used.' }),
      },
      resolve: (_root, { certificateRequest }, context) =>
        context.identities.renew(hostOf(context), certificateRequest, context.address),
    }),
    openSession: t.field({
      type: Session,
      description: 'Starts a session, which ends any earlier one of this host.',
      args: { input: t.arg({ type: OpenSessionInput }) },
      resolve: (_root, { input }, context) =>
        context.sessions.open(callerOf(context), { ...input, vms: input.vms.map(observationOf) }),
    }),
    heartbeat: t.boolean({
      description: 'Says that the host lives. False: the session has ended, open another.',
      args: { input: t.arg({ type: HeartbeatInput }) },
      resolve: async (_root, { input }, context) => {
        const sessionId = String(input.sessionId);
        const host = await sessionOf(context, 'heartbeat', sessionId);
        const load = { cpuLoad: Math.min(1, Math.max(0, input.cpuLoad)), memoryUsedMib: input.memoryUsedMib };
        return context.sessions.heartbeat(host.id, sessionId, load, input.vms.map(usageOf));
      },
    }),
    reportCommands: t.boolean({
      description:
        "Answers commands. Returns once all answers are durable; a host repeats a report that failed. FORBIDDEN: some are of another host's commands; the others are taken.",
      args: { reports: t.arg({ type: [CommandReportInput] }) },
      resolve: async (_root, { reports }, context) => {
        const host = hostOf(context);
        return refuseForeign(context, 'reportCommands', reports, (report) => answer(context, host.id, report));
      },
    }),
    reportProgress: t.boolean({
      description: 'Progress of commands under way, at most two a second for each.',
      args: { progress: t.arg({ type: [ProgressInput] }) },
      resolve: (_root, { progress }, context) => {
        const host = hostOf(context);
        return refuseForeign(context, 'reportProgress', progress, (told) => takeProgress(context, host.id, told));
      },
    }),
    reportVms: t.boolean({
      description: "VM states as they change. FORBIDDEN: some are of another host's VMs; the others are taken.",
      args: { sessionId: t.arg.id(), vms: t.arg({ type: [VmObservationInput] }) },
      resolve: async (_root, { sessionId, vms }, context) => {
        const host = await sessionOf(context, 'reportVms', String(sessionId));
        if (!context.sessions.isCurrent(host.id, String(sessionId))) return false;
        const foreign = await context.observations.some(host.id, String(sessionId), vms.map(observationOf));
        if (foreign.length > 0) throw await refused(context, 'reportVms', ofOthers(foreign));
        return true;
      },
    }),
    sendSerial: t.boolean({
      description:
        'The next piece of a watched serial log, in base64, and its offset in the log. False: nobody watches any more.',
      args: { commandId: t.arg.id(), offset: t.arg({ type: 'BigInt' }), base64: t.arg.string() },
      resolve: async (_root, { commandId, offset, base64 }, context) => {
        const host = hostOf(context);
        const piece = { offset, bytes: Buffer.from(base64, 'base64') };
        const taken = context.agent.serialPiece(host.id, String(commandId), piece);
        if (taken === 'FOREIGN') throw await refused(context, 'sendSerial', "another host's log");
        return taken;
      },
    }),
  }),
});

builder.subscriptionType({
  fields: (t) => ({
    commands: t.field({
      type: [Command],
      description: 'First every command still open, then each new one; several in a message when several are ready.',
      args: { sessionId: t.arg.id() },
      subscribe: async (_root, { sessionId }, context) => {
        const host = await sessionOf(context, 'commands', String(sessionId));
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

const usageOf = (vm: typeof VmUsageInput.$inferInput) => ({
  ...vm,
  vmId: String(vm.vmId),
  networkReceiveBytes: vm.networkReceiveBytes ?? null,
  networkTransmitBytes: vm.networkTransmitBytes ?? null,
});

/**
 * Takes each of what a message holds by itself, so that what is another's does not keep the rest.
 *
 * @param take answers false for what is another's
 * @throws VirtgraphError FORBIDDEN
 */
async function refuseForeign<T extends { commandId: string | number }>(
  context: HostdContext,
  message: string,
  items: readonly T[],
  take: (item: T) => Promise<boolean>,
): Promise<true> {
  const taken = await Promise.all(items.map(take));
  const foreign = items.filter((_, i) => !taken[i]).map(({ commandId }) => String(commandId));
  if (foreign.length === 0) return true;
  throw await refused(context, message, `commands of others (${listed(foreign)})`);
}

/** @returns false for a command of another host */
async function answer(
  context: HostdContext,
  hostId: number,
  report: typeof CommandReportInput.$inferInput,
): Promise<boolean> {
  const commandId = String(report.commandId);
  const error = report.error ?? null;
  const result = report.result ?? {};
  const asked = context.links.answered(hostId, commandId, result, error);
  if (asked) return asked !== 'FOREIGN';
  const command = parseCommandId(commandId);
  if (!command) {
    context.log.warn({ hostId, commandId }, 'a host answered a command that was never sent; ignored');
    return true;
  }
  const told: Answer = error ? { ok: false, error } : { ok: true, result };
  const verdict = await context.answer(hostId, command.jobId, command.seq, told);
  // Of a step that is not open nothing is written, whoever answers; but a host has nothing to say of another's.
  if (verdict === 'foreign' || (verdict === 'repeat' && (await context.commandOwners.isAnothers(hostId, command))))
    return false;
  context.links.forget(hostId, commandId);
  context.progress.settle(command.jobId, command.seq);
  return true;
}

/** @returns false for a command of another host */
async function takeProgress(
  context: HostdContext,
  hostId: number,
  { commandId, done, total, unit }: typeof ProgressInput.$inferInput,
): Promise<boolean> {
  const command = parseCommandId(String(commandId));
  if (!command) return true;
  if (!context.links.isOpen(hostId, String(commandId)))
    return !(await context.commandOwners.isAnothers(hostId, command));
  context.progress.report(hostId, command.jobId, command.seq, { done, total, unit });
  return true;
}
