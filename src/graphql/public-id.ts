import { VirtgraphError } from '../domain/errors.ts';
import { decodeId, decodeIdOf, notAnId, type ResourceKind } from '../domain/ids.ts';

const malformed = (message: string, path: string[]): VirtgraphError =>
  new VirtgraphError({ code: 'INVALID_INPUT', message, path });

/**
 * What a public id of one kind is made of.
 *
 * @throws VirtgraphError INVALID_INPUT when it is not one
 */
export function uidOf(kind: ResourceKind, id: string, path: string[]): Buffer {
  const uid = decodeIdOf(kind, id);
  if (!uid) throw malformed(notAnId(kind), path);
  return uid;
}

/** @throws VirtgraphError INVALID_INPUT when it is the id of nothing */
export function parseId(id: string, path: string[]): { kind: ResourceKind; uid: Buffer } {
  const decoded = decodeId(id);
  if (!decoded) throw malformed('Not an id.', path);
  return decoded;
}

const NUMBERED_ID = /^(evt|aud)_([1-9]\d{0,15})$/;
const LOG_OF_PREFIX = { evt: 'event', aud: 'audit' } as const;
/** Events and audit records are numbered, so their ids are too. */
export const encodeEventId = (seq: number): string => `evt_${seq}`;
export const encodeAuditId = (seq: number): string => `aud_${seq}`;

/** Which log an id is of, and the number in it; null: of none. */
export function decodeLogId(id: string): { log: 'event' | 'audit'; seq: number } | null {
  const [, prefix, digits] = NUMBERED_ID.exec(id) ?? [];
  const seq = Number(digits);
  return Number.isSafeInteger(seq) ? { log: LOG_OF_PREFIX[prefix as 'evt' | 'aud'], seq } : null;
}
