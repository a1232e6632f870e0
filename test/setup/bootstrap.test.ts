import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { missingPackages, REQUIREMENTS, systemProblem } from '../../setup/debian.mjs';

const bootstrap = resolve(import.meta.dirname, '../../setup/bootstrap.mjs');
const folder = await mkdtemp(join(tmpdir(), 'virtgraph-bootstrap-'));
after(() => rm(folder, { recursive: true }));

const FEDORA = 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n';

/** Runs the bootstrap as npm's scripts do. */
function run(args: string[], path = process.env['PATH']): Promise<{ code: number; out: string; error: string }> {
  return new Promise((done) => {
    const env = { ...process.env, PATH: path };
    execFile(process.execPath, [bootstrap, ...args], { env }, (failure, out, error) => {
      done({ code: Number(failure?.code ?? 0), out, error });
    });
  });
}

test('on another system it names what is missing with the package that brings it, and stops', async () => {
  const release = join(folder, 'os-release');
  await writeFile(release, FEDORA);
  const { code, out, error } = await run(['start', '--os-release', release], folder);
  assert.equal(code, 1);
  assert.equal(out, '');
  assert.match(error, /^Fedora Linux 43 is not Debian 12, Ubuntu 24\.04 or later/);
  assert.match(error, /^ {2}qemu-img {2}\(on Debian: package qemu-utils\)$/m);
  assert.match(error, /^ {2}apt-get {2}\(on Debian: package apt\)$/m);
});

test('what is there is not called missing', () => {
  const problem = systemProblem(FEDORA, 'x64', (program) => program !== 'syslinux');
  assert.equal(problem?.split('\n').slice(1).join('\n'), '  syslinux  (on Debian: package syslinux)');
});

test('Debian 12, its unnumbered testing, Ubuntu 24.04 and their relatives are systems to install on', () => {
  for (const release of [
    'ID=debian\nVERSION_ID="12"\n',
    'ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n',
    'ID=ubuntu\nVERSION_ID="24.04"\nID_LIKE=debian\n',
    'ID=linuxmint\nVERSION_ID="22"\nID_LIKE="ubuntu debian"\n',
  ]) {
    assert.equal(systemProblem(release, 'x64'), null, release);
  }
});

test('an older release and another processor are named', () => {
  assert.match(systemProblem('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian 11"', 'x64')!, /^Debian 11 is too old/);
  assert.match(systemProblem('ID=ubuntu\nVERSION_ID="22.04"\n', 'x64')!, /^this system is too old/);
  assert.match(systemProblem('ID=debian\nVERSION_ID="12"\n', 'arm64')!, /arm64; Virtgraph's hosts need x86-64/);
});

test('a package counts as there only when it is installed, not when its settings remain', () => {
  const missing = missingPackages((names) =>
    names.map((name) => `${name} ${name === 'mtools' ? 'config-files' : 'installed'}`).join('\n'),
  );
  assert.deepEqual(missing, ['mtools']);
  assert.ok(missingPackages(() => '').length > REQUIREMENTS.length);
});

test('a command that is not there is an error with the list of those that are', async () => {
  const { code, error } = await run(['launch']);
  assert.equal(code, 1);
  assert.match(error, /usage: bootstrap\.mjs start\|test\|bench\|check\|down/);
});

test('the exit code of what it hands over to is its own', async () => {
  const settings = { ...process.env };
  process.env['VIRTGRAPH_DATA'] = join(folder, 'nothing-here');
  try {
    const { code, out } = await run(['down']);
    assert.deepEqual({ code, out }, { code: 0, out: `Nothing runs from ${join(folder, 'nothing-here')}.\n` });
    const failed = await run(['start', '--no-such-option']);
    assert.notEqual(failed.code, 0);
    assert.match(failed.error, /no-such-option/);
  } finally {
    process.env = settings;
  }
});
