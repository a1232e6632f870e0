import {
  type GraphQLField,
  type GraphQLInputField,
  type GraphQLOutputType,
  getNamedType,
  isInputObjectType,
  isInterfaceType,
  isLeafType,
  isObjectType,
  type OperationTypeNode,
} from 'graphql';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { schema } from '../../src/graphql/schema.ts';

/** A field of the graph's root, as a document that calls it with variables of its arguments' names. */
export interface Call {
  field: GraphQLField<unknown, unknown>;
  query: string;
}

export const rootFields = (operation: OperationTypeNode | string): Record<string, GraphQLField<unknown, unknown>> =>
  schema.getRootType(operation as OperationTypeNode)!.getFields();

export function callOf(operation: string, name: string): Call {
  const field = rootFields(operation)[name]!;
  const declared = field.args.map((arg) => `$${arg.name}: ${arg.type}`).join(', ');
  const given = field.args.map((arg) => `${arg.name}: $${arg.name}`).join(', ');
  const selection = selectionOf(field.type);
  const query =
    declared === ''
      ? `${operation} { ${name} ${selection} }`
      : `${operation} (${declared}) { ${name}(${given}) ${selection} }`;
  return { field, query };
}

/** What tells that something was answered: ids, codes, or merely its type. */
function selectionOf(type: GraphQLOutputType): string {
  const named = getNamedType(type);
  if (isLeafType(named)) return '';
  const fields = isObjectType(named) || isInterfaceType(named) ? named.getFields() : {};
  if ('errors' in fields) return '{ errors { code message path } }';
  if ('nodes' in fields) return '{ nodes { id } }';
  return 'id' in fields ? '{ id }' : '{ __typename }';
}

/** Paths of all arguments of type ID, with those inside of inputs: `filter.zoneId`. */
export function idPaths(field: GraphQLField<unknown, unknown>): string[] {
  const walk = (args: Iterable<Pick<GraphQLInputField, 'name' | 'type'>>, prefix: string): string[] =>
    [...args].flatMap(({ name, type }) => {
      const named = getNamedType(type);
      if (isInputObjectType(named)) return walk(Object.values(named.getFields()), `${prefix}${name}.`);
      return named.name === 'ID' ? [`${prefix}${name}`] : [];
    });
  return walk(field.args, '');
}

/** Whether the mutation's input has this field. */
export function inputHas(field: GraphQLField<unknown, unknown>, name: string): boolean {
  const input = getNamedType(field.args[0]!.type);
  return isInputObjectType(input) && name in input.getFields();
}

/** The arguments with one of them, or a field inside of one, replaced. A list stays a list. */
export function withAt(args: Record<string, unknown>, path: string, value: unknown): Record<string, unknown> {
  const [first, ...rest] = path.split('.') as [string, ...string[]];
  const before = args[first];
  if (rest.length === 0) return { ...args, [first]: Array.isArray(before) ? [value] : value };
  if (Array.isArray(before))
    return { ...args, [first]: before.map((one: Record<string, unknown>) => withAt(one, rest.join('.'), value)) };
  return { ...args, [first]: withAt((before ?? {}) as Record<string, unknown>, rest.join('.'), value) };
}

export interface Answered {
  data?: Record<string, unknown> | null;
  errors?: { message: string; extensions: { code: string; argument?: string[] } }[];
}

export async function post(
  url: string,
  token: string | null,
  query: string,
  variables: object,
  accept = 'application/json',
): Promise<{ status: number; body: Answered }> {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept, ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify({ query, variables }),
  });
  return { status: response.status, body: (await response.json()) as Answered };
}

/** What a subscription says first. */
export async function firstOf(
  url: string,
  token: string,
  query: string,
  variables: Record<string, unknown>,
): Promise<Answered> {
  const client = createClient({
    url: `${url.replace(/^http/, 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: 0,
  });
  const messages = client.iterate({ query, variables });
  try {
    const { value } = await messages.next();
    return value as Answered;
  } catch (error) {
    // An `error` message: the errors alone.
    if (Array.isArray(error)) return { errors: error as NonNullable<Answered['errors']> };
    throw error;
  } finally {
    await messages.return?.();
    await client.dispose();
  }
}

/** Says who it is and asks in one breath, waiting for no acknowledgement. Resolves with all that came back. */
export function askUninvited(
  url: string,
  token: string | null,
  query: string,
  variables: object,
): Promise<{ closeCode: number; heard: string[] }> {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/graphql`, 'graphql-transport-ws');
  const heard: string[] = [];
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (message) => heard.push(String(message)));
    socket.on('close', (closeCode) => resolve({ closeCode, heard }));
    socket.on('open', () => {
      const payload = token === null ? {} : { authorization: `Bearer ${token}` };
      socket.send(JSON.stringify({ type: 'connection_init', payload }));
      socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables } }));
    });
  });
}
