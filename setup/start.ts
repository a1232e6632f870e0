import { mkdir } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { dataFolder } from './data-folder.ts';
import { LocalStack } from './local-stack.ts';
import { ProcessRecords } from './process-record.ts';
import { findVmProcesses } from './process-search.ts';
import { showVms } from './show-vms.ts';

const USAGE = 'usage: npm start -- [--port NUMBER]';

/** The reason of an end that somebody asked for. */
class Interrupted extends Error {}

const port = portOption();
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stopping.abort(new Interrupted()));

// Open to QEMU's own user; what is secret in it has a mode of its own.
await mkdir(dataFolder, { recursive: true });
const records = new ProcessRecords(`${dataFolder}/run`);
if (await records.claim('start')) {
  process.exitCode = await run(port);
  await records.remove('start');
} else {
  const holder = await records.running('start');
  console.error(`Virtgraph runs already from ${dataFolder}${holder ? ` (process ${holder.pid})` : ''}.`);
  console.error('Ctrl-C in its terminal leaves the VMs running; npm run down stops everything.');
  process.exitCode = 1;
}

function portOption(): number {
  try {
    const { values } = parseArgs({
      options: { port: { type: 'string', default: '4000' }, help: { type: 'boolean', default: false } },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`--port ${values.port} is no port`);
    return port;
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    process.exit(1);
  }
}

/** From the start to the end that is asked for. Answers the exit code. */
async function run(port: number): Promise<number> {
  const stack = new LocalStack({ dataFolder, port, records, stopping });
  try {
    const api = await stack.start();
    await showVms(api, stopping.signal);
    console.log(`
GraphiQL, signed in   ${stack.url}/graphiql#token=${stack.adminToken}
admin token           ${stack.adminTokenPath}
logs                  ${dataFolder}/log

Ctrl-C stops the control plane, hostd and the database; the VMs go on running. npm run down stops everything.`);
    await aborted(stopping.signal);
  } catch (error) {
    stopping.abort(error);
  }
  await stack.stop();
  const { reason } = stopping.signal;
  const running = (await findVmProcesses(dataFolder)).length;
  if (reason instanceof Interrupted) {
    console.log(`\nStopped. ${farewell(running)}`);
    return 0;
  }
  console.error(`\n${reason instanceof Error ? reason.message : reason}`);
  if (running > 0) console.error(`\nThe rest is stopped. ${farewell(running)}`);
  return 1;
}

function farewell(running: number): string {
  if (running === 0) return 'No VM runs.';
  const subject = running === 1 ? '1 VM goes' : `${running} VMs go`;
  return `${subject} on running: npm start finds ${running === 1 ? 'it' : 'them'} again, npm run down stops all.`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
