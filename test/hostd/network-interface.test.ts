import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isInterfaceName, macAddress, tapMacAddress, tapName } from '../../hostd/network/nic.ts';
import { anId, hasCode } from './qemu-host.ts';

const VM_ID = 'vm_06bk2wgqsxe1fdqmmg2vy9nn8r';

test("A tap has a name of 15 characters that ends as its VM's id does", () => {
  assert.equal(tapName(VM_ID), 'vgdqmmg2vy9nn8r');
});

test('A MAC address is the same each time, of one machine, and locally administered', () => {
  assert.equal(macAddress(VM_ID), macAddress(VM_ID));
  const addresses = Array.from({ length: 2_000 }, () => macAddress(anId('vm')));
  assert.equal(new Set(addresses).size, addresses.length);
  for (const address of addresses) {
    assert.match(address, /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
    assert.equal(Number.parseInt(address.slice(0, 2), 16) & 0b1000_0011, 0b10, address);
  }
});

test("The host's end of a link has an address above that of every guest, and none of a guest's", () => {
  for (const vmId of Array.from({ length: 2_000 }, () => anId('vm'))) {
    const [guest, tap] = [macAddress(vmId), tapMacAddress(macAddress(vmId))];
    assert.match(tap, /^fe(:[0-9a-f]{2}){5}$/);
    assert.ok(tap > guest, `${tap} ${guest}`);
  }
});

test('Nothing but the id of a VM becomes a name or an address', () => {
  for (const text of ['', 'vm_', 'eth0', '../..', `${VM_ID} up`, anId('volume')]) {
    assert.throws(() => tapName(text), hasCode('INTERNAL'), text);
    assert.throws(() => macAddress(text), hasCode('INTERNAL'), text);
  }
});

test('A name that Linux gives no interface is none', () => {
  for (const name of ['br0', 'a', 'br-0123456789ab', 'vlan.10@x', '-x']) assert.ok(isInterfaceName(name), name);
  for (const name of ['', '.', '..', 'br 0', 'br/0', 'br:0', 'br\n', 'br0123456789abcd', 'brücke', 'br\0']) {
    assert.ok(!isInterfaceName(name), JSON.stringify(name));
  }
});
