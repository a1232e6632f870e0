/** Progress of the open step of a job, as its host told it last. */
export interface StepProgress {
  jobId: number;
  seq: number;
  done: number;
  total: number;
  unit: string;
  /** Units per second, smoothed; null until two reports are there. */
  rate: number | null;
}

/**
 * The one port: hosts are the one dependency that is remote, slow, plural and unreliable. These are the questions that
 * need no job. Each fails with HOST_UNREACHABLE, HOST_REFUSED or TIMEOUT.
 */
export interface HostAgent {
  /** PNG. */
  screenshot(hostId: number, vmUid: Buffer): Promise<Buffer>;
  /** The end of the serial log. */
  serialLog(hostId: number, vmUid: Buffer, lastBytes: number): Promise<Buffer>;
  /** The end of the serial log, then all that follows, until the iterator is returned. */
  watchSerial(
    hostId: number,
    vmUid: Buffer,
    lastBytes: number,
  ): AsyncIterableIterator<{ offset: number; bytes: Buffer }>;
  /** Live progress that this process knows of; null: none, look at the row. */
  progressOf(jobId: number): StepProgress | null;
  /** @returns a function that ends the listening */
  listenProgress(listener: (progress: StepProgress) => void): () => void;
}
