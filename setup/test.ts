import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { databaseUrlProblem } from '../src/db/database-url.ts';
import { tinyLinux } from '../test/support/guest.ts';
import { dataFolder } from './data-folder.ts';
import { runInSandbox } from './sandbox.ts';
import { fetchSlapd } from './slapd.ts';

const HELP = `Usage: npm test -- [FILE …] [options]

Runs all tests, or those of the files, on a private MariaDB that is gone afterwards.

  --test-name-pattern PATTERN  Only tests whose title matches; may be repeated
  --test-only                  Only tests that are marked \`only\`
  --help                       This text

Environment
  TEST_DATABASE_URL  Runs on this server instead: MariaDB 10.6, MySQL 8.0.19 or later, whose user may create databases
`;

// Most tests wait for a database or a guest rather than compute, so two at a time even where there is one core.
const concurrency = Math.min(8, Math.max(2, availableParallelism()));
const TEST_TIMEOUT_MS = 300_000;
const EXIT_WRONG_USE = 2;

const { values, positionals } = readArguments();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const { TEST_DATABASE_URL: databaseUrl } = process.env;
const problem = databaseUrl ? databaseUrlProblem('TEST_DATABASE_URL', databaseUrl) : null;
if (problem) fail(problem);

// Before the tests begin, so that none of them has the build in its time.
await tinyLinux();
await fetchSlapd(join(dataFolder, 'cache'));
const args = [
  ...['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${TEST_TIMEOUT_MS}`],
  ...values['test-name-pattern'].map((pattern) => `--test-name-pattern=${pattern}`),
  ...(values['test-only'] ? ['--test-only'] : []),
  ...(positionals.length > 0 ? positionals : ['test/**/*.test.ts']),
];
process.exitCode = await runInSandbox(tmpdir(), args, databaseUrl);

/** Of the options of Node's test runner those that choose tests: how they run is decided here. */
function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        'test-name-pattern': { type: 'string', multiple: true, default: [] },
        'test-only': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    return fail((error as Error).message);
  }
}

function fail(message: string): never {
  process.stderr.write(`${message}\n\n${HELP}`);
  process.exit(EXIT_WRONG_USE);
}
