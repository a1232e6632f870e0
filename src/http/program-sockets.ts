import type { IncomingMessage } from 'node:http';
import type { ExecutionArgs, ExecutionResult, GraphQLError } from 'graphql';
import { type Context, makeServer, type Server } from 'graphql-ws';
import type { Logger } from 'pino';
import type { WebSocket } from 'ws';
import { canonical } from './address.ts';
import { EventStream } from './event-stream.ts';
import { type Operation, type Pipeline, readParams } from './execute.ts';
import type { Limits } from './limits.ts';
import { codeOfError, Refusal } from './refusal.ts';
import { CLOSE, closeForGood, type Extra } from './socket-keeper.ts';

/** A connection of one of our own programs: a host daemon, or another control plane. */
export interface ProgramExtra extends Extra {
  /** The context of everything this connection asks. */
  context?: object;
}

/**
 * Who the program is, as the context of its operations.
 *
 * @throws VirtgraphError UNAUTHENTICATED: the connection is closed with 4403; any other error: 1013, try again
 */
export type ProgramContextFor = (
  connectionParams: Record<string, unknown>,
  request: IncomingMessage,
  socket: ProgramSocket,
) => Promise<object>;

/** The WebSocket of a program, for what decides who it is. */
export interface ProgramSocket {
  /** Closes it with 4403: the program is not, or no more, who it says. */
  end(why: string): void;
  onClose(listener: () => void): void;
  /** Where it comes from; null: it is gone. */
  address: string | null;
}

interface Arguments extends ExecutionArgs {
  operation: Operation;
  contextValue: object;
  requestId: string;
}

/** graphql-transport-ws for hosts, over their own schema. A host sends the same few documents for ever. */
export function programProtocol(
  pipeline: Pipeline,
  limits: Limits,
  contextFor: ProgramContextFor,
  log: Logger,
): Server<ProgramExtra> {
  return makeServer<Record<string, unknown>, ProgramExtra>({
    connectionInitWaitTimeout: limits.connectionInitMs,
    onConnect: (context) => connect(pipeline, contextFor, context),
    onSubscribe: ({ extra }, _id, payload) => admit(pipeline, extra, payload),
    execute: (args) => run(pipeline, args as Arguments),
    subscribe: (args) => subscribe(pipeline, args as Arguments, log),
  });
}

async function connect(
  pipeline: Pipeline,
  contextFor: ProgramContextFor,
  { connectionParams, extra }: Context<Record<string, unknown>, ProgramExtra>,
): Promise<boolean> {
  try {
    extra.context = await contextFor(connectionParams ?? {}, extra.request, programSocket(extra));
    return true;
  } catch (error) {
    const shown = pipeline.shown(error, extra.requestId);
    // A host takes 4403 for the end of its certificate, so an outage must not look like it.
    if (codeOfError(shown) === 'UNAUTHENTICATED') forbid(extra.socket, shown.message);
    else extra.socket.close(CLOSE.tryAgainLater, 'The host cannot be looked up now');
    return false;
  }
}

/** What a close frame can hold, in bytes. */
const REASON_BYTES = 123;

/** Nothing of it is heard from now on, even if it doesn't close its side. */
const forbid = (socket: WebSocket, why: string): void =>
  closeForGood(socket, CLOSE.forbidden, Buffer.from(why).subarray(0, REASON_BYTES));

const programSocket = ({ socket, request }: ProgramExtra): ProgramSocket => ({
  // Programs come by themselves, never for others.
  address: canonical(request.socket.remoteAddress ?? ''),
  end: (why) => forbid(socket, why),
  onClose: (listener) => {
    if (socket.readyState === socket.CLOSED) listener();
    else socket.once('close', listener);
  },
});

function admit(pipeline: Pipeline, { context, requestId }: ProgramExtra, payload: unknown): Arguments | GraphQLError[] {
  try {
    const operation = pipeline.prepare(readParams(payload));
    const { document, params } = operation;
    return {
      schema: pipeline.schema,
      document,
      operationName: params.operationName,
      contextValue: context!,
      operation,
      requestId,
    };
  } catch (error) {
    return error instanceof Refusal ? [...error.errors] : [pipeline.shown(error, requestId)];
  }
}

const run = (pipeline: Pipeline, { operation, contextValue, requestId }: Arguments): Promise<ExecutionResult> =>
  pipeline.execute(operation, contextValue, requestId);

async function subscribe(
  pipeline: Pipeline,
  { operation, contextValue, requestId }: Arguments,
  log: Logger,
): Promise<AsyncIterableIterator<ExecutionResult> | ExecutionResult> {
  const source = await pipeline.open(operation, contextValue, requestId);
  if (!(Symbol.asyncIterator in source)) return source;
  return new EventStream(source, {
    run: (event) => pipeline.execute(operation, contextValue, requestId, event),
    onEnd: () => log.debug({ requestId }, 'a host left a subscription'),
    log,
  });
}

export const programExtra = (socket: WebSocket, request: IncomingMessage, requestId: string): ProgramExtra => ({
  socket,
  request,
  requestId,
});
