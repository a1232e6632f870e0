import { availableParallelism, tmpdir } from 'node:os';
import { tinyLinux } from '../test/support/guest.ts';
import { runInSandbox } from './sandbox.ts';

// Most tests wait for a database or a guest rather than compute, so two at a time even where there is one core.
const concurrency = Math.min(8, Math.max(2, availableParallelism()));
const TEST_TIMEOUT_MS = 300_000;

const named = process.argv.slice(2);
// Before the tests begin, so that none of them has the build in its time.
await tinyLinux();
process.exitCode = await runInSandbox(tmpdir(), [
  ...['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${TEST_TIMEOUT_MS}`],
  ...(named.length > 0 ? named : ['test/**/*.test.ts']),
]);
