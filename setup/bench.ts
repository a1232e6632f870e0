import { dataFolder } from './data-folder.ts';
import { runInSandbox } from './sandbox.ts';

// On the disk of the data folder: a temporary folder may lie in memory, where a commit costs nothing.
process.exitCode = await runInSandbox(dataFolder, ['bench/main.ts', ...process.argv.slice(2)]);
