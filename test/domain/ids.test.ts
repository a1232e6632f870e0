import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { decodeId, decodeIdOf, encodeId, ID_PREFIX, RESOURCE_KINDS } from '../../src/domain/ids.ts';

const ZERO = Buffer.alloc(16);
const FULL = Buffer.alloc(16, 0xff);

describe('public ids', () => {
  it('come back as what they were made of', () => {
    for (const kind of RESOURCE_KINDS)
      for (const uid of [ZERO, FULL, ...Array.from({ length: 50 }, () => randomBytes(16))]) {
        const id = encodeId(kind, uid);
        assert.match(id, new RegExp(`^${ID_PREFIX[kind]}_[0-9a-hjkmnp-tv-z]{26}$`));
        assert.deepEqual(decodeId(id), { kind, uid });
        assert.deepEqual(decodeIdOf(kind, id), uid);
      }
  });

  it('are what they have always been', () => {
    assert.equal(encodeId('vm', ZERO), 'vm_00000000000000000000000000');
    assert.equal(encodeId('cluster', FULL), 'cl_7zzzzzzzzzzzzzzzzzzzzzzzzz');
    const uid = Buffer.from('0123456789abcdeffedcba9876543210', 'hex');
    assert.equal(
      encodeId('host', uid),
      `host_${BigInt(`0x${uid.toString('hex')}`)
        .toString(32)
        .padStart(26, '0')
        .replaceAll(/[a-v]/g, (c) => 'abcdefghjkmnpqrstvwxyz'[c.charCodeAt(0) - 97]!)}`,
    );
  });

  it('sort as their bytes do', () => {
    const uids = Array.from({ length: 200 }, () => randomBytes(16));
    const byBytes = [...uids].sort(Buffer.compare).map((uid) => encodeId('vm', uid));
    assert.deepEqual([...byBytes].sort(), byBytes);
  });

  it('refuse every other form', () => {
    const id = encodeId('vm', FULL);
    const text = id.slice(3);
    const wrong = ['', '_', 'vm', 'vm_', text, `_${text}`, `VM_${text}`, `vn_${text}`, `vm__${text}`, `vm-${text}`];
    wrong.push(`${id}0`, id.slice(0, -1), ` ${id}`, `${id} `, `${id}\n`, id.toUpperCase(), `vm_8${text.slice(1)}`);
    for (const letter of ['i', 'l', 'o', 'u', 'é', '\0', '-', '😀'[0]!]) wrong.push(`vm_7${letter}${text.slice(2)}`);
    wrong.push(`vm_x_${text}`, `constructor_${text}`, `__proto___${text}`);
    for (const form of wrong) {
      assert.equal(decodeId(form), null, JSON.stringify(form));
      assert.equal(decodeIdOf('vm', form), null, JSON.stringify(form));
    }
  });

  it('refuse an id of another kind', () => {
    const vm = encodeId('vm', FULL);
    for (const kind of RESOURCE_KINDS) assert.equal(decodeIdOf(kind, vm) !== null, kind === 'vm', kind);
  });

  it('have a prefix each', () => {
    assert.equal(new Set(Object.values(ID_PREFIX)).size, RESOURCE_KINDS.length);
  });
});
