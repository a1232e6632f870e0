import { constants } from 'node:os';
import type { ObservedVmState } from '../generated/protocol.ts';

/** What QEMU's run states are to the control plane. @see QEMU QMP reference, RunState */
const OBSERVED: Record<string, ObservedVmState> = {
  running: 'RUNNING',
  prelaunch: 'STARTING',
  inmigrate: 'STARTING',
  paused: 'PAUSED',
  'io-error': 'PAUSED',
  watchdog: 'PAUSED',
  debug: 'PAUSED',
  suspended: 'PAUSED',
  'internal-error': 'PAUSED',
  'guest-panicked': 'PAUSED',
  'save-vm': 'PAUSED',
  'restore-vm': 'PAUSED',
  'finish-migrate': 'PAUSED',
  postmigrate: 'PAUSED',
  colo: 'PAUSED',
  shutdown: 'STOPPED',
};

/** Run states that nobody asked for, for people. */
const REASON: Record<string, string> = {
  'io-error': 'a disk failed or is full',
  watchdog: 'the watchdog stopped it',
  'internal-error': 'the virtual processor failed',
  'guest-panicked': 'guest panicked',
};

export function observeRunState(status: string): { state: ObservedVmState; reason: string | null } {
  return { state: OBSERVED[status] ?? 'PAUSED', reason: REASON[status] ?? null };
}

/** What is known of the end of a QEMU. */
export interface EndEvidence {
  /** `reason` of QEMU's SHUTDOWN event; null: it told of none, or nobody listened. */
  shutdown: string | null;
  /** We killed it. */
  killed: boolean;
  /** Null: it was not our child. */
  exit: { code: number | null; signal: NodeJS.Signals | null } | null;
  /** It took down the socket of its monitor, which QEMU does when it ends in order. */
  orderly: boolean;
  /** The end of what it wrote to stderr. */
  lastWords: string;
}

export interface End {
  state: 'STOPPED' | 'CRASHED';
  reason: string;
}

const BY_SHUTDOWN: Record<string, End> = {
  'guest-shutdown': { state: 'STOPPED', reason: 'guest powered off' },
  'guest-reset': { state: 'STOPPED', reason: 'guest powered off' },
  'guest-panic': { state: 'CRASHED', reason: 'guest panicked' },
  'host-qmp-quit': { state: 'STOPPED', reason: 'ended by force' },
  'host-signal': { state: 'CRASHED', reason: 'QEMU was told to end by a signal' },
  'host-error': { state: 'CRASHED', reason: 'QEMU ended on an error' },
};

/** Whether a QEMU's end was wanted, by the guest or by us, and why it ended. */
export function judgeEnd({ shutdown, killed, exit, orderly, lastWords }: EndEvidence): End {
  if (killed) return { state: 'STOPPED', reason: 'ended by force' };
  const known = shutdown === null ? undefined : BY_SHUTDOWN[shutdown];
  // A crash on the way down is a crash.
  if (known && (exit === null || exit.code === 0)) return known;
  if (exit?.signal) return { state: 'CRASHED', reason: `QEMU ended by signal ${constants.signals[exit.signal]}` };
  if (exit !== null && exit.code !== 0) {
    return { state: 'CRASHED', reason: withWords(`QEMU ended with code ${exit.code}`, lastWords) };
  }
  // Nobody listened when it ended.
  if (!orderly) return { state: 'CRASHED', reason: withWords('QEMU died', lastWords) };
  if (lastWords.includes('terminating on signal')) return BY_SHUTDOWN['host-signal']!;
  return { state: 'STOPPED', reason: 'guest powered off' };
}

function withWords(reason: string, lastWords: string): string {
  const last = lastWords.trim().split('\n').at(-1);
  return last ? `${reason}: ${last}` : reason;
}
