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

const EVENT_ID = /^evt_([1-9]\d{0,15})$/;
/** Events are numbered, so their ids are too. */
export const encodeEventId = (seq: number): string => `evt_${seq}`;
export const decodeEventId = (id: string): number | null => {
  const seq = Number(EVENT_ID.exec(id)?.[1]);
  return Number.isSafeInteger(seq) ? seq : null;
};
