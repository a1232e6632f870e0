import { CommandError } from '../hypervisor.ts';

const ID = /^([a-z]+)_([0-7][0-9a-hjkmnp-tv-z]{25})$/;
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/**
 * The id itself when it is one of `prefix`, such as `vm_06bk2…`. Everything that becomes part of an argv or a path goes
 * through here: an id holds nothing that QEMU, a file system or a person could read as anything else. Throws INTERNAL.
 */
export function checkId(prefix: string, id: string): string {
  if (ID.exec(id)?.[1] === prefix) return id;
  throw new CommandError('INTERNAL', `${JSON.stringify(id)} is not an id of the form ${prefix}_…`);
}

export function isId(prefix: string, text: string): boolean {
  return ID.exec(text)?.[1] === prefix;
}

/** The 16 bytes that a checked id stands for, as a UUID: what the guest's firmware and `query-uuid` tell. */
export function uuidOfId(id: string): string {
  let value = 0n;
  for (const character of id.slice(id.lastIndexOf('_') + 1)) {
    value = (value << 5n) | BigInt(ALPHABET.indexOf(character));
  }
  const hex = value.toString(16).padStart(32, '0');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
