import { createHash } from 'node:crypto';
import { checkId } from '../qemu/ids.ts';

/** How a VM is attached to its network. */
export interface Nic {
  /** Name of the host's end. */
  tap: string;
  /** Of the guest's end. */
  macAddress: string;
  /** The longest packet that its network takes. */
  mtuBytes: number;
}

/** Linux has room for 15 characters. 13 of an id are its last 65 bits, nearly all of them random. */
const ID_CHARACTERS = 13;
const MAC_BYTES = 6;

/** Made of the VM's id alone, so whoever finds the interface knows whose it is. Throws INTERNAL. */
export function tapName(vmId: string): string {
  return `vg${checkId('vm', vmId).slice(-ID_CHARACTERS)}`;
}

/**
 * The same each time that the VM starts, wherever: for one guest, and locally administered. Its first bit is never set,
 * as that of `tapMacAddress` always is: the two ends of a link must differ.
 */
export function macAddress(vmId: string): string {
  const bytes = createHash('sha256').update(checkId('vm', vmId)).digest().subarray(0, MAC_BYTES);
  bytes[0] = (bytes[0]! & 0b0111_1100) | 0b10;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Of the host's end. A bridge takes the lowest address of its ports for its own, which must not change with VMs. */
export function tapMacAddress(guest: string): string {
  return `fe${guest.slice(2)}`;
}

/** Whether Linux can have an interface of this name; beyond ASCII we don't go. */
export function isInterfaceName(text: string): boolean {
  return /^[!-~]{1,15}$/.test(text) && !/[/:]/.test(text) && text !== '.' && text !== '..';
}
