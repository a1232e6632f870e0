/** Kinds of resources that have a public id, with its prefix. */
export const ID_PREFIX = {
  zone: 'zone',
  pod: 'pod',
  cluster: 'cl',
  host: 'host',
  primary_storage: 'ps',
  offering: 'off',
  template: 'tpl',
  vm: 'vm',
  volume: 'vol',
  job: 'job',
  domain: 'dom',
  account: 'acc',
  user: 'user',
  role: 'role',
  api_key: 'key',
  project_member: 'mem',
  session: 'ses',
  identity_provider: 'idp',
} as const;

export type ResourceKind = keyof typeof ID_PREFIX;
export const RESOURCE_KINDS = Object.keys(ID_PREFIX) as ResourceKind[];

const KIND_OF_PREFIX = new Map<string, ResourceKind>(RESOURCE_KINDS.map((kind) => [ID_PREFIX[kind], kind]));

/** Crockford's alphabet: no i, l, o, u, so a person can read an id aloud. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const VALUE = new Map([...ALPHABET].map((character, value) => [character, value]));
const TEXT_LENGTH = 26;

/** The public form of a uid of 16 bytes: `vm_06bk2…`, sorted like the bytes. */
export function encodeId(kind: ResourceKind, uid: Buffer): string {
  return `${ID_PREFIX[kind]}_${encodeUid(uid)}`;
}

/** 16 bytes as 26 characters. */
export function encodeUid(uid: Buffer): string {
  let text = '';
  // 128 bits are 26 groups of 5 with two leading zero bits.
  let bits = 2;
  let buffer = 0;
  for (const byte of uid) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(buffer >>> bits) & 31];
    }
    buffer &= (1 << bits) - 1;
  }
  return text;
}

/** The kind and uid of a public id; null when it is not one. Only the exact form that `encodeId` gives is accepted. */
export function decodeId(id: string): { kind: ResourceKind; uid: Buffer } | null {
  const split = id.lastIndexOf('_');
  const kind = KIND_OF_PREFIX.get(id.slice(0, split));
  const uid = decodeUid(id.slice(split + 1));
  return kind && uid ? { kind, uid } : null;
}

/** What is said of an id that is none of this kind. */
export const notAnId = (kind: ResourceKind): string => `Not an id like \`${ID_PREFIX[kind]}_…\`.`;

/** The uid of a public id that must be of one kind; null when it is not. */
export function decodeIdOf(kind: ResourceKind, id: string): Buffer | null {
  const decoded = decodeId(id);
  return decoded?.kind === kind ? decoded.uid : null;
}

function decodeUid(text: string): Buffer | null {
  if (text.length !== TEXT_LENGTH) return null;
  const uid = Buffer.alloc(16);
  let bits = 0;
  let buffer = 0;
  let at = 0;
  for (let i = 0; i < TEXT_LENGTH; i++) {
    const value = VALUE.get(text[i]!);
    // The first character holds the two leading zero bits and three of the uid's.
    if (value === undefined || (i === 0 && value > 7)) return null;
    buffer = (buffer << 5) | value;
    bits += i === 0 ? 3 : 5;
    if (bits >= 8) {
      bits -= 8;
      uid[at++] = (buffer >>> bits) & 255;
      buffer &= (1 << bits) - 1;
    }
  }
  return uid;
}
