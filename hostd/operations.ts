import type { Command, RegisterInput, Registration, Renewal, Session } from './generated/protocol.ts';

/** Every operation that hostd sends, with the shape of its answer beside it. Contract: schema/hostd.graphql. */

export const REGISTER = `mutation Register($input: RegisterInput!) {
  register(input: $input) { hostId certificate authority }
}`;
export type RegisterVariables = { input: RegisterInput };
export type RegisterAnswer = { register: Registration };

export const RENEW_CERTIFICATE = `mutation RenewCertificate($certificateRequest: String!) {
  renewCertificate(certificateRequest: $certificateRequest) { certificate authority }
}`;
export type RenewCertificateAnswer = { renewCertificate: Renewal };

export const OPEN_SESSION = `mutation OpenSession($input: OpenSessionInput!) {
  openSession(input: $input) { sessionId heartbeatMs hostId }
}`;
export type OpenSessionAnswer = { openSession: Session };

export const HEARTBEAT = `mutation Heartbeat($input: HeartbeatInput!) { heartbeat(input: $input) }`;
export type HeartbeatAnswer = { heartbeat: boolean };

export const REPORT_COMMANDS = `mutation ReportCommands($reports: [CommandReportInput!]!) {
  reportCommands(reports: $reports)
}`;
export type ReportCommandsAnswer = { reportCommands: boolean };

export const REPORT_PROGRESS = `mutation ReportProgress($progress: [ProgressInput!]!) {
  reportProgress(progress: $progress)
}`;

export const REPORT_VMS = `mutation ReportVms($sessionId: ID!, $vms: [VmObservationInput!]!) {
  reportVms(sessionId: $sessionId, vms: $vms)
}`;
export type ReportVmsAnswer = { reportVms: boolean };

export const SEND_SERIAL = `mutation SendSerial($commandId: ID!, $offset: BigInt!, $base64: String!) {
  sendSerial(commandId: $commandId, offset: $offset, base64: $base64)
}`;
export type SendSerialAnswer = { sendSerial: boolean };

/**
 * `templateId` is nullable in one command and not in another, which GraphQL lets one selection hold only under two
 * names: `decodeCommand` puts it back.
 */
export const COMMANDS = `subscription Commands($sessionId: ID!) {
  commands(sessionId: $sessionId) {
    __typename commandId epoch timeoutMs
    ... on InspectImageCommand { fileName format maxVirtualBytes }
    ... on PrepareTemplateCommand { templateId fileName format sha256 storagePath }
    ... on CreateVolumeCommand { baseTemplateId: templateId volume { ...volume } }
    ... on DeleteVolumeCommand { volume { ...volume } }
    ... on StartVmCommand { vm { vmId vcpus memoryMib volumes { ...volume } } }
    ... on StopVmCommand { vmId mode gracefulTimeoutMs }
    ... on ControlVmCommand { vmId action }
    ... on RemoveVmCommand { vmId }
    ... on ScreenshotRequest { vmId }
    ... on SerialLogRequest { vmId lastBytes }
    ... on WatchSerialRequest { vmId lastBytes }
  }
}
fragment volume on VolumeSpec { volumeId storagePath format sizeBytes }`;
export type CommandsAnswer = { commands: (Command & { baseTemplateId?: string | null })[] };

export function decodeCommand({ baseTemplateId, ...command }: CommandsAnswer['commands'][number]): Command {
  return command.__typename === 'CreateVolumeCommand' ? { ...command, templateId: baseTemplateId ?? null } : command;
}
