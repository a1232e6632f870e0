import { hostname } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { destination, levels, pino } from 'pino';
import { ArgumentError, HELP, readArguments } from './arguments.ts';
import { type Hostd, HostdOptionsError, startHostd } from './daemon.ts';
import { DataFolderInUse } from './data-folder.ts';
import { GivenUp, JoinTokenRefused } from './given-up.ts';
import { BridgeError } from './network/taps.ts';

const EXIT_WRONG_USE = 2;

async function main(): Promise<void> {
  const options = await readArguments(process.argv.slice(2), { environment: process.env, machineName: hostname() });
  if (options === null) {
    process.stdout.write(HELP);
    return;
  }
  // The handshakes of many hosts leave much that is soon garbage; V8 would keep the room for it for good.
  if ((options.count ?? 1) > 1) setFlagsFromString('--semi-space-growth-factor=1');
  const { LOG_LEVEL: level = 'info' } = process.env;
  if (!(level in levels.values))
    throw new ArgumentError(`LOG_LEVEL is one of ${Object.keys(levels.values).join(', ')}`);
  const log = pino({ name: 'hostd', level }, destination(2));
  const hostd = await startHostd({ ...options, log });
  endOnSignal(hostd, log);
  try {
    await hostd.linked();
  } catch (error) {
    if (error instanceof GivenUp) {
      await hostd.close();
      throw error;
    }
    log.info({ reason: (error as Error).message }, 'ended before it was linked');
    return;
  }
  const { hypervisor } = await hostd.hypervisors[0]!.facts();
  process.stdout.write(`${JSON.stringify({ ready: true, hosts: hostd.hostIds.length, hypervisor })}\n`);
  // Not awaited: a daemon that is told to end has nothing else to wait for.
  void hostd.givenUp().then(async (why) => {
    await hostd.close();
    tell(why);
  });
}

function endOnSignal(hostd: Hostd, log: pino.Logger): void {
  const end = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'ending; VMs are left alone');
    hostd.close().catch((error: unknown) => {
      log.fatal({ err: error }, 'could not end in order');
      process.exitCode = 1;
    });
  };
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
}

/** What a person is told in one line, instead of a stack: how it begins, and how it ends the process. */
const TOLD: [kind: new (...args: never[]) => Error, before: string, after: string, exitCode: number][] = [
  [ArgumentError, '', 'hostd --help tells how.\n', EXIT_WRONG_USE],
  [HostdOptionsError, '', 'hostd --help tells how.\n', EXIT_WRONG_USE],
  [BridgeError, '', 'hostd --help tells how.\n', EXIT_WRONG_USE],
  [DataFolderInUse, '', '', 1],
  [JoinTokenRefused, 'the join token was refused: ', '', 1],
  [GivenUp, '', '', 1],
];

function tell(error: unknown): void {
  const told = TOLD.find(([kind]) => error instanceof kind);
  if (!told) throw error;
  const [, before, after, exitCode] = told;
  process.stderr.write(`hostd: ${before}${(error as Error).message}\n${after}`);
  process.exitCode = exitCode;
}

await main().catch(tell);
