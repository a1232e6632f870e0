import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { buildSchema, graphql } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { ControlApi, GraphqlFailure } from '../../setup/graphql.ts';

const schema = buildSchema(`
  type Query { me: String! }
  type Mutation { createThing(input: CreateThingInput!): Payload! }
  input CreateThingInput { name: String! }
  type Payload { thing: String errors: [UserError!]! }
  type UserError { code: String! message: String! }
  type Subscription { count(to: Int!): Int! forever: Int! broken: Int! }
`);
const rootValue = {
  me: (_: object, context: { authorization?: string }) => context.authorization,
  createThing: ({ input }: { input: { name: string } }) =>
    input.name === 'taken'
      ? { errors: [{ code: 'NAME_TAKEN', message: 'There is one of that name.' }] }
      : { thing: input.name, errors: [] },
};
const TOKEN = 'secret';
const admitted = (authorization: unknown): boolean => authorization === `Bearer ${TOKEN}`;

const server = createServer(async (request: IncomingMessage, response) => {
  const { query, variables } = JSON.parse(await text(request));
  const { authorization } = request.headers;
  const answer = admitted(authorization)
    ? await graphql({ schema, rootValue, source: query, variableValues: variables, contextValue: { authorization } })
    : { errors: [{ message: 'Sign in.' }] };
  response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
});
async function* forever() {
  yield { forever: 1 };
  await new Promise(() => undefined);
}
const webSockets = new WebSocketServer({ server, path: '/graphql' });
useServer(
  {
    schema,
    onConnect: ({ connectionParams }) => admitted(connectionParams?.['authorization']),
    roots: {
      subscription: {
        async *count({ to }: { to: number }) {
          for (let n = 1; n <= to; n++) yield { count: n };
        },
        forever,
        async *broken() {
          yield { broken: null };
        },
      },
    },
  },
  webSockets,
);
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const ending = new AbortController();
const api = new ControlApi(url, TOKEN, ending.signal);
const stranger = new ControlApi(url, 'wrong', new AbortController().signal);
after(async () => {
  await Promise.all([api.close(), stranger.close()]);
  webSockets.close();
  server.close();
});

async function collect(events: AsyncIterable<unknown>): Promise<unknown[]> {
  return Array.fromAsync(events);
}

test('a request carries the token and answers the data', async () => {
  assert.deepEqual(await api.request('{ me }'), { me: 'Bearer secret' });
});

test('errors of a request, and those in a payload, reject with their messages and codes', async () => {
  await assert.rejects(stranger.request('{ me }'), new GraphqlFailure([{ message: 'Sign in.' }]));
  await assert.rejects(api.mutate('createThing', { name: 'taken' }, 'thing'), (error: GraphqlFailure) => {
    assert.equal(error.message, 'There is one of that name. (NAME_TAKEN)');
    assert.deepEqual(error.codes, ['NAME_TAKEN']);
    return true;
  });
  assert.equal((await api.mutate<{ thing: string }>('createThing', { name: 'new' }, 'thing')).thing, 'new');
});

test('a subscription yields each event and ends with its source', async () => {
  const events = api.subscribe('subscription($to: Int!) { count(to: $to) }', { to: 3 });
  assert.deepEqual(await collect(events), [{ count: 1 }, { count: 2 }, { count: 3 }]);
});

test('a subscription that the server refuses is an Error with the reason', async () => {
  await assert.rejects(collect(stranger.subscribe('subscription { forever }', {})), /closed: 4403 Forbidden/);
  await assert.rejects(collect(api.subscribe('subscription { unknown }', {})), GraphqlFailure);
  await assert.rejects(collect(api.subscribe('subscription { broken }', {})), /non-nullable field/);
});

test('a subscription ends silently when its time is up, and with the reason when everything ends', async () => {
  const timeUp = new AbortController();
  for await (const event of api.subscribe('subscription { forever }', {}, timeUp.signal)) {
    assert.deepEqual(event, { forever: 1 });
    timeUp.abort();
  }
  const interrupted = new Error('interrupted');
  const run = async () => {
    for await (const _ of api.subscribe('subscription { forever }', {})) ending.abort(interrupted);
  };
  await assert.rejects(run(), interrupted);
  await assert.rejects(api.request('{ me }'), interrupted);
});
