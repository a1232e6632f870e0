// Generated from schema/hostd.graphql by schema/generate.ts. Do not edit.

export type Maybe<T> = T | null;
export type InputMaybe<T> = Maybe<T>;
/** All built-in and custom scalars, mapped to their actual values */
export type Scalars = {
  ID: { input: string; output: string; }
  String: { input: string; output: string; }
  Boolean: { input: boolean; output: boolean; }
  Int: { input: number; output: number; }
  Float: { input: number; output: number; }
  /** A number beyond 2^53, as a decimal string. */
  BigInt: { input: string; output: string; }
};

/** Ends another command, if it is still under way; that one is then answered CANCELLED. */
export type CancelCommand = {
  /** Id of the command to end. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
};

/** Why a host could not do a command. */
export type CommandErrorCode =
  | 'CANCELLED'
  | 'DISK_FULL'
  | 'IMAGE_REFUSED'
  | 'INTERNAL'
  | 'NOT_FOUND'
  | 'QEMU_FAILED'
  | 'STALE_EPOCH'
  | 'TIMEOUT';

export type CommandErrorInput = {
  readonly code: CommandErrorCode;
  readonly message: Scalars['String']['input'];
};

export type CommandReportInput = {
  readonly commandId: Scalars['ID']['input'];
  /** Null: done. */
  readonly error?: InputMaybe<CommandErrorInput>;
  /** Fields that only some commands answer. */
  readonly result?: InputMaybe<CommandResultInput>;
};

export type CommandResultInput = {
  /** Screenshot: PNG in base64. SerialLog: the bytes in base64. */
  readonly base64?: InputMaybe<Scalars['String']['input']>;
  /** InspectImage: size of the file in bytes. */
  readonly fileBytes?: InputMaybe<Scalars['BigInt']['input']>;
  /** InspectImage: SHA-256 of the file. */
  readonly sha256?: InputMaybe<Scalars['String']['input']>;
  /** InspectImage: virtual size in bytes. PrepareTemplate: likewise. */
  readonly virtualBytes?: InputMaybe<Scalars['BigInt']['input']>;
};

export type ControlAction =
  | 'PAUSE'
  | 'RESET'
  | 'RESUME';

/** Resets, pauses or resumes a running VM. */
export type ControlVmCommand = {
  readonly action: ControlAction;
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};

/** Creates a volume, empty or on top of a prepared template. */
export type CreateVolumeCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** Template under the volume; null: empty. */
  readonly templateId: Maybe<Scalars['ID']['output']>;
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly volume: VolumeSpec;
};

/** Deletes a volume's file. One that isn't there is the wanted result. */
export type DeleteVolumeCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly volume: VolumeSpec;
};

export type HeartbeatInput = {
  /** Busy share of all CPUs, 0 to 1. */
  readonly cpuLoad: Scalars['Float']['input'];
  readonly memoryUsedMib: Scalars['Int']['input'];
  readonly sessionId: Scalars['ID']['input'];
  readonly vms: ReadonlyArray<VmUsageInput>;
};

export type Hypervisor =
  | 'FAKE'
  | 'KVM'
  | 'TCG';

export type ImageFormat =
  | 'QCOW2'
  | 'RAW';

/** Reads an image file in the host's image folder and says what it is, or refuses it. */
export type InspectImageCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** Name of the file inside the host's image folder; no separators. */
  readonly fileName: Scalars['String']['output'];
  readonly format: ImageFormat;
  /** Largest virtual size that is accepted, in bytes. */
  readonly maxVirtualBytes: Scalars['BigInt']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
};

/** What a host sees of a VM. */
export type ObservedVmState =
  | 'ABSENT'
  | 'CRASHED'
  | 'PAUSED'
  | 'RUNNING'
  | 'STARTING'
  | 'STOPPED';

export type OpenSessionInput = {
  /** Names of what this host can do, for example `vm.start`. */
  readonly capabilities: ReadonlyArray<Scalars['String']['input']>;
  readonly hypervisor: Hypervisor;
  readonly memoryTotalMib: Scalars['Int']['input'];
  readonly vcpusTotal: Scalars['Int']['input'];
  readonly version: Scalars['String']['input'];
  /** Every VM that this host knows of. */
  readonly vms: ReadonlyArray<VmObservationInput>;
};

/** Makes a fresh qcow2 of a registered image on a primary storage, once: a copy that is there already is the result. */
export type PrepareTemplateCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  readonly fileName: Scalars['String']['output'];
  readonly format: ImageFormat;
  /** SHA-256 of the file as it was registered, in lower-case hexadecimal. Another one is refused. */
  readonly sha256: Scalars['String']['output'];
  readonly storagePath: Scalars['String']['output'];
  readonly templateId: Scalars['ID']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
};

export type ProgressInput = {
  readonly commandId: Scalars['ID']['input'];
  readonly done: Scalars['BigInt']['input'];
  readonly total: Scalars['BigInt']['input'];
  /** What is counted, for example `bytes`. */
  readonly unit: Scalars['String']['input'];
};

export type RegisterInput = {
  /** PKCS #10 in PEM, signed by an ECDSA key on P-256 that this host has made and keeps. Nothing but the key is taken from it. */
  readonly certificateRequest: Scalars['String']['input'];
  /** The secret of a token of `createHostJoinToken`: what stands before its dot. */
  readonly joinToken: Scalars['String']['input'];
  /** Unique inside its cluster; by default the machine's name. */
  readonly name: Scalars['String']['input'];
};

export type Registration = {
  /** The certificate, in PEM, of the authority that has issued it, and every control plane its own. */
  readonly authority: Scalars['String']['output'];
  /** What this host shows from now on, in PEM. */
  readonly certificate: Scalars['String']['output'];
  readonly hostId: Scalars['ID']['output'];
};

/** Removes what a host keeps of a stopped VM: its runtime folder and serial log. */
export type RemoveVmCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};

export type Renewal = {
  /** The certificate of the authority, in PEM. */
  readonly authority: Scalars['String']['output'];
  /** What this host may show from now on, in PEM. */
  readonly certificate: Scalars['String']['output'];
};

/** A picture of the VM's screen: PNG, in base64. Not journalled. */
export type ScreenshotRequest = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};

/** The end of the VM's serial log. Not journalled. */
export type SerialLogRequest = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** How many bytes from the end, at most 1 MiB. */
  readonly lastBytes: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};

export type Session = {
  readonly heartbeatMs: Scalars['Int']['output'];
  /** The host's own id. */
  readonly hostId: Scalars['ID']['output'];
  readonly sessionId: Scalars['ID']['output'];
};

/** Starts a VM, or finds it running at this epoch. */
export type StartVmCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vm: VmSpec;
};

export type StopMode =
  /** End QEMU at once. */
  | 'FORCE'
  /** Ask the guest to power off; answer TIMEOUT when it doesn't. */
  | 'GRACEFUL'
  /** Ask the guest, then end QEMU when it doesn't. */
  | 'GRACEFUL_THEN_FORCE';

/** Stops a VM. One that isn't there is the wanted result. */
export type StopVmCommand = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** How long the guest may take to power off, in milliseconds. */
  readonly gracefulTimeoutMs: Scalars['Int']['output'];
  readonly mode: StopMode;
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};

export type VmObservationInput = {
  /** Highest epoch that the host has seen for the VM. */
  readonly epoch: Scalars['Int']['input'];
  /** For people: why it is so, for example `guest powered off`. */
  readonly reason?: InputMaybe<Scalars['String']['input']>;
  readonly state: ObservedVmState;
  readonly vmId: Scalars['ID']['input'];
};

export type VmSpec = {
  readonly memoryMib: Scalars['Int']['output'];
  readonly vcpus: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
  /** In boot order. */
  readonly volumes: ReadonlyArray<VolumeSpec>;
};

/** Counters of one VM since its QEMU started. */
export type VmUsageInput = {
  readonly cpuNs: Scalars['BigInt']['input'];
  readonly diskReadBytes: Scalars['BigInt']['input'];
  readonly diskWriteBytes: Scalars['BigInt']['input'];
  readonly memoryBytes: Scalars['BigInt']['input'];
  /** Null: the VM has no network interface whose traffic the host can count. */
  readonly networkReceiveBytes?: InputMaybe<Scalars['BigInt']['input']>;
  readonly networkTransmitBytes?: InputMaybe<Scalars['BigInt']['input']>;
  readonly vmId: Scalars['ID']['input'];
};

export type VolumeSpec = {
  readonly format: ImageFormat;
  /** Virtual size in bytes; null: as large as the template. */
  readonly sizeBytes: Maybe<Scalars['BigInt']['output']>;
  /** Folder of the primary storage on this host. */
  readonly storagePath: Scalars['String']['output'];
  readonly volumeId: Scalars['ID']['output'];
};

/** Sends the serial log from an offset on and then all that follows, by `sendSerial`, until a `CancelCommand` names this one. Not journalled. */
export type WatchSerialRequest = {
  /** Identifies the command for ever: `<job>.<step>`. */
  readonly commandId: Scalars['ID']['output'];
  /** Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM. */
  readonly epoch: Scalars['Int']['output'];
  /** How many bytes of what is there already to send first. */
  readonly lastBytes: Scalars['Int']['output'];
  /** The host may give up after this many milliseconds and answers TIMEOUT. */
  readonly timeoutMs: Scalars['Int']['output'];
  readonly vmId: Scalars['ID']['output'];
};


/** One instruction to a host. Delivered at least once: a host that knows `commandId` answers with the stored result and acts no second time. */
export type Command =
  | ({ readonly __typename: 'CancelCommand' } & CancelCommand)
  | ({ readonly __typename: 'ControlVmCommand' } & ControlVmCommand)
  | ({ readonly __typename: 'CreateVolumeCommand' } & CreateVolumeCommand)
  | ({ readonly __typename: 'DeleteVolumeCommand' } & DeleteVolumeCommand)
  | ({ readonly __typename: 'InspectImageCommand' } & InspectImageCommand)
  | ({ readonly __typename: 'PrepareTemplateCommand' } & PrepareTemplateCommand)
  | ({ readonly __typename: 'RemoveVmCommand' } & RemoveVmCommand)
  | ({ readonly __typename: 'ScreenshotRequest' } & ScreenshotRequest)
  | ({ readonly __typename: 'SerialLogRequest' } & SerialLogRequest)
  | ({ readonly __typename: 'StartVmCommand' } & StartVmCommand)
  | ({ readonly __typename: 'StopVmCommand' } & StopVmCommand)
  | ({ readonly __typename: 'WatchSerialRequest' } & WatchSerialRequest);
