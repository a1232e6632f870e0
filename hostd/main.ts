import { hostname } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { destination, levels, pino } from 'pino';
import { ArgumentError, HELP, readArguments } from './arguments.ts';
import { type Hostd, HostdOptionsError, startHostd } from './daemon.ts';
import { DataFolderInUse } from './data-folder.ts';

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
    log.info({ reason: (error as Error).message }, 'ended before it was linked');
    return;
  }
  const { hypervisor } = await hostd.hypervisors[0]!.facts();
  process.stdout.write(`${JSON.stringify({ ready: true, hosts: hostd.hostIds.length, hypervisor })}\n`);
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

try {
  await main();
} catch (error) {
  const wrongUse = error instanceof ArgumentError || error instanceof HostdOptionsError;
  if (!wrongUse && !(error instanceof DataFolderInUse)) throw error;
  process.stderr.write(`hostd: ${error.message}\n${wrongUse ? 'hostd --help tells how.\n' : ''}`);
  process.exitCode = wrongUse ? EXIT_WRONG_USE : 1;
}
