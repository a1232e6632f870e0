import SchemaBuilder from '@pothos/core';
import type { HostAgent } from '../domain/host-agent.ts';

/** What one control plane asks another about the hosts that are linked there. */
export interface PeerContext {
  agent: HostAgent;
}

interface Piece {
  offset: number;
  bytes: Buffer;
}

/** The third builder: between control planes, over the same kind of socket as hosts use. */
const builder = new SchemaBuilder<{
  Context: PeerContext;
  DefaultFieldNullability: false;
  DefaultInputFieldRequiredness: true;
}>({
  plugins: [],
  // Required by type alone: the public builder's plugin widens the options of every builder in the program.
  relay: {},
  defaultFieldNullability: false,
  defaultInputFieldRequiredness: true,
});

const uidOf = (hex: string): Buffer => Buffer.from(hex, 'hex');

const SerialPiece = builder.objectRef<Piece>('SerialPiece').implement({
  description: 'A piece of a serial log.',
  fields: (t) => ({
    offset: t.float({ description: 'Where in the log it begins, in bytes.', resolve: (piece) => piece.offset }),
    base64: t.string({ description: 'Its bytes.', resolve: (piece) => piece.bytes.toString('base64') }),
  }),
});

builder.queryType({
  fields: (t) => ({
    screenshot: t.string({
      description: 'A PNG in base64.',
      args: { hostId: t.arg.float(), vmUid: t.arg.string() },
      resolve: async (_root, { hostId, vmUid }, { agent }) =>
        (await agent.screenshot(hostId, uidOf(vmUid))).toString('base64'),
    }),
    serialLog: t.string({
      description: 'The end of a serial log, in base64.',
      args: { hostId: t.arg.float(), vmUid: t.arg.string(), lastBytes: t.arg.int() },
      resolve: async (_root, { hostId, vmUid, lastBytes }, { agent }) =>
        (await agent.serialLog(hostId, uidOf(vmUid), lastBytes)).toString('base64'),
    }),
  }),
});

builder.subscriptionType({
  fields: (t) => ({
    watchSerial: t.field({
      type: SerialPiece,
      description: 'The end of a serial log, then all that follows.',
      args: { hostId: t.arg.float(), vmUid: t.arg.string(), lastBytes: t.arg.int() },
      subscribe: (_root, { hostId, vmUid, lastBytes }, { agent }) => agent.watchSerial(hostId, uidOf(vmUid), lastBytes),
      resolve: (piece) => piece as Piece,
    }),
  }),
});

export const peerSchema = builder.toSchema();
