import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { VmSpec, Volume } from '../../hostd/hypervisor.ts';
import { macAddress, tapName } from '../../hostd/network/nic.ts';
import { qemuArguments, storagePaths } from '../../hostd/qemu/argv.ts';
import { uuidOfId } from '../../hostd/qemu/ids.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { hasCode } from './qemu-host.ts';

const VM_ID = 'vm_06bk2wgqsxe1fdqmmg2vy9nn8r';
const VOLUME_IDS = [
  'vol_06bk2wgqsxe1fdqmmg2vy9nn90',
  'vol_06bk2wgqsxe1fdqmmg2vy9nn94',
  'vol_06bk2wgqsxe1fdqmmg2vy9nn98',
];

function aVolume(position: number, overrides: Partial<Volume> = {}): Volume {
  return { volumeId: VOLUME_IDS[position]!, storagePath: '/pool/a', format: 'QCOW2', sizeBytes: null, ...overrides };
}

function aSpec(overrides: Partial<VmSpec> = {}): VmSpec {
  return { vmId: VM_ID, vcpus: 2, memoryMib: 2048, volumes: [aVolume(0)], ...overrides };
}

async function assertGolden(name: string, args: string[]): Promise<void> {
  const path = join(import.meta.dirname, 'golden', name);
  const text = `${args.join('\n')}\n`;
  if (process.env['UPDATE_GOLDEN']) await writeFile(path, text);
  assert.equal(text, await readFile(path, 'utf8'), `UPDATE_GOLDEN=1 rewrites ${name}, if the change is wanted`);
}

test('A VM with three volumes on two storages has these arguments on KVM', async () => {
  const volumes = [aVolume(0), aVolume(1, { storagePath: '/pool/b', format: 'RAW' }), aVolume(2)];
  await assertGolden('argv-kvm.txt', qemuArguments(aSpec({ volumes }), 'kvm'));
  assert.deepEqual(storagePaths(aSpec({ volumes })), ['/pool/a', '/pool/b']);
});

test('A VM without volumes has these arguments under emulation', async () => {
  await assertGolden('argv-tcg.txt', qemuArguments(aSpec({ vcpus: 1, memoryMib: 256, volumes: [] }), 'tcg'));
});

test('A VM on a bridge has a network interface between its ports and its disks', async () => {
  const nic = { tap: tapName(VM_ID), macAddress: macAddress(VM_ID), mtuBytes: 1_450 };
  await assertGolden('argv-bridge.txt', qemuArguments(aSpec(), 'kvm', nic));
});

test('The uuid is made of the bytes that the control plane made the id of', () => {
  const bytes = Buffer.from('0197f3a2c4d87e3f9a1b2c3d4e5f6071', 'hex');
  assert.equal(uuidOfId(encodeId('vm', bytes)), '0197f3a2-c4d8-7e3f-9a1b-2c3d4e5f6071');
  assert.equal(uuidOfId(encodeId('vm', Buffer.alloc(16, 255))), 'ffffffff-ffff-ffff-ffff-ffffffffffff');
});

test('Text that a person could have chosen reaches no argument, whatever it is', (t) => {
  const seed = randomInt(2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const random = generator(seed);
  for (let round = 0; round < 2_000; round++) {
    const hostile = hostileText(random);
    for (const spec of [
      aSpec({ vmId: hostile }),
      aSpec({ vmId: `vm_${hostile}` }),
      aSpec({ vmId: VM_ID + hostile }),
      aSpec({ volumes: [aVolume(0, { volumeId: hostile })] }),
      aSpec({ volumes: [aVolume(0, { volumeId: VOLUME_IDS[0] + hostile })] }),
    ]) {
      assert.throws(() => qemuArguments(spec, 'tcg'), hasCode('INTERNAL'), JSON.stringify(hostile));
    }
    const elsewhere = aSpec({ volumes: [aVolume(0, { storagePath: `/${hostile}` })] });
    assert.deepEqual(qemuArguments(elsewhere, 'tcg'), qemuArguments(aSpec(), 'tcg'));
  }
});

test('Ids of another kind and sizes that no machine has are refused', () => {
  for (const overrides of [
    { vmId: VOLUME_IDS[0]! },
    { vmId: VM_ID.toUpperCase() },
    // Beyond 128 bits.
    { vmId: `vm_8${VM_ID.slice(4)}` },
    { volumes: [aVolume(0, { volumeId: VM_ID })] },
    { vcpus: 0 },
    { vcpus: 1.5 },
    { vcpus: 513 },
    { memoryMib: 0 },
    { memoryMib: Number.NaN },
  ]) {
    assert.throws(() => qemuArguments(aSpec(overrides), 'tcg'), hasCode('INTERNAL'), JSON.stringify(overrides));
  }
});

/** Pieces that mean something to QEMU, a shell, JSON or a file system, and noise. */
function hostileText(random: () => number): string {
  const pieces = [
    ',',
    '=',
    '..',
    '/',
    '"',
    "'",
    '\0',
    '\n',
    '-',
    'json:',
    '{',
    '}',
    'process=evil',
    ' ',
    '$(id)',
    'ü',
    'a',
  ];
  const length = 1 + Math.floor(random() * 12);
  return Array.from({ length }, () => pieces[Math.floor(random() * pieces.length)]).join('');
}

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
