import { mkdir } from 'node:fs/promises';
import { enableCompileCache } from 'node:module';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import pino from 'pino';
import { DATABASE_URL_FORM, databaseUrlProblem } from './db/database-url.ts';
import { allowedProblem } from './egress/egress.ts';
import { trustedProxies } from './http/address.ts';

/** The composition root of the control plane, and the only reader of its environment and command line. */
const HELP = `Usage: npm run control -- [--port 4000] [--host 127.0.0.1] [--hosts-port 4001] [--origin URL …]
                              [--advertise URL] [--public-url URL]

  --port       port to listen on (default 4000; 0: any that is free)
  --host       address to listen on (default 127.0.0.1)
  --hosts-port port for host daemons, by TLS (default: the one after --port; 0: any that is free)
  --hosts-host address for host daemons to come to (default: that of --host)
  --origin     a web origin that may ask beside our own; may be repeated
  --advertise  URL at which other control planes reach this one (default: where it listens)
  --public-url URL at which browsers reach it, where OpenID providers send people back to (default: where it listens)

Environment
  DATABASE_URL    ${DATABASE_URL_FORM} (required)
  VIRTGRAPH_DATA  folder of the admin token and the sealing key (default .virtgraph)
  VIRTGRAPH_SEALING_KEY_FILE
                  where the sealing key is, which all control planes of a database share (default: in VIRTGRAPH_DATA)
  VIRTGRAPH_TRUSTED_PROXIES
                  reverse proxies whose X-Forwarded-For counts: 10.0.0.0/8,fd00::7 (default: the header is ignored)
  VIRTGRAPH_AUDIT_DAYS
                  for how long the audit trail is kept (default 365)
  VIRTGRAPH_EGRESS_ALLOW
                  what may be reached inside, with its port or any: 10.1.0.0/16:636,[fd00::/8]:443 (default: nothing)
  LOG_LEVEL       trace, debug, info, warn, error, fatal (default info)
`;

function fail(message: string): never {
  process.stderr.write(`${message}\n\n${HELP}`);
  process.exit(2);
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        port: { type: 'string', default: '4000' },
        host: { type: 'string', default: '127.0.0.1' },
        'hosts-port': { type: 'string' },
        'hosts-host': { type: 'string' },
        origin: { type: 'string', multiple: true, default: [] },
        advertise: { type: 'string' },
        'public-url': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return fail((error as Error).message);
  }
}

/**
 * Loading leaves garbage that a process with little to do would keep for hours. The last resort also gives back the
 * young generation's room and what is kept of sources in case it is needed again.
 */
function releaseStartMemory(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as NodeJS.GCFunction)({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

const values = readArguments();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
function portOf(option: string, text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  return fail(`${option} takes a number up to 65535, not ${text}.`);
}
const port = portOf('--port', values.port);
const hostsPort = portOf('--hosts-port', values['hosts-port'] ?? String(port === 0 ? 0 : port + 1));
const {
  DATABASE_URL: databaseUrl,
  VIRTGRAPH_DATA = '.virtgraph',
  VIRTGRAPH_SEALING_KEY_FILE,
  VIRTGRAPH_TRUSTED_PROXIES = '',
  VIRTGRAPH_AUDIT_DAYS = '365',
  VIRTGRAPH_EGRESS_ALLOW = '',
  LOG_LEVEL = 'info',
} = process.env;
if (values.advertise !== undefined && !URL.canParse(values.advertise)) fail('--advertise takes a URL.');
const publicUrl = values['public-url'];
if (publicUrl !== undefined && !/^https?:\/\/[^/]+\/?$/.test(publicUrl))
  fail('--public-url takes a URL without a path, like https://cloud.example.com.');
const egressProblem = allowedProblem(VIRTGRAPH_EGRESS_ALLOW);
if (egressProblem) fail(`VIRTGRAPH_EGRESS_ALLOW: ${egressProblem}`);
if (!databaseUrl) fail('DATABASE_URL is not set.');
const databaseProblem = databaseUrlProblem('DATABASE_URL', databaseUrl);
if (databaseProblem) fail(databaseProblem);
const proxies = VIRTGRAPH_TRUSTED_PROXIES.split(',').flatMap((network) => network.trim() || []);
const { wrong } = trustedProxies(proxies);
if (wrong.length > 0)
  fail(`VIRTGRAPH_TRUSTED_PROXIES takes addresses and networks like 10.0.0.0/8, separated by commas, not ${wrong[0]}.`);
const auditDays = Number(VIRTGRAPH_AUDIT_DAYS);
if (!Number.isInteger(auditDays) || auditDays < 1 || auditDays > 36_500)
  fail(`VIRTGRAPH_AUDIT_DAYS takes a number of days from 1 to 36500, not ${VIRTGRAPH_AUDIT_DAYS}.`);
if (!(LOG_LEVEL in pino.levels.values)) fail(`LOG_LEVEL is one of ${Object.keys(pino.levels.values).join(', ')}.`);

const dataPath = resolve(VIRTGRAPH_DATA);
await mkdir(dataPath, { recursive: true, mode: 0o700 });
const log = pino({ level: LOG_LEVEL }, pino.destination(2));
// From here on what is loaded comes compiled from the last start: half the time, and no compiler kept in memory.
enableCompileCache(join(import.meta.dirname, '../node_modules/.cache/virtgraph'));
const { startControl } = await import('./control.ts');
const control = await startControl({
  databaseUrl,
  host: values.host,
  port,
  hosts: { host: values['hosts-host'] ?? values.host, port: hostsPort },
  adminTokenPath: join(dataPath, 'admin-token'),
  sealingKeyPath: resolve(VIRTGRAPH_SEALING_KEY_FILE ?? join(dataPath, 'sealing-key')),
  log,
  origins: values.origin,
  trustedProxies: proxies,
  auditDays,
  egressAllow: VIRTGRAPH_EGRESS_ALLOW,
  ...(publicUrl === undefined ? {} : { publicUrl }),
  ...(values.advertise === undefined ? {} : { advertise: values.advertise }),
}).catch((error: unknown) => {
  log.fatal({ err: error }, 'the control plane could not start');
  process.exit(1);
});

let closing = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // A second signal means: now.
    if (closing) process.exit(1);
    closing = true;
    control.close().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'the control plane could not close cleanly');
        process.exit(1);
      },
    );
  });
}
// Last: who reads it may send a signal at once.
process.stdout.write(`${JSON.stringify({ ready: true, url: control.http.url, hostsUrl: control.http.secure?.url })}\n`);
releaseStartMemory();
