import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connectSocket, QmpClient, QmpError, type QmpEvent } from '../../hostd/qemu/qmp.ts';
import { temporaryFolder } from './temporary-folder.ts';

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: ['oob'] } };

type Request = { execute: string; arguments?: unknown; id: number };

/** A monitor that answers `qmp_capabilities` by itself and leaves the rest to the test. */
class FakeMonitor {
  readonly socket: Socket;
  readonly #requests: Request[] = [];
  #news = Promise.withResolvers<void>();

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\n').filter(Boolean)) this.#take(JSON.parse(line));
    });
  }

  send(...messages: unknown[]): void {
    this.socket.write(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''));
  }

  async request(): Promise<Request> {
    while (this.#requests.length === 0) {
      this.#news = Promise.withResolvers();
      await this.#news.promise;
    }
    return this.#requests.shift()!;
  }

  #take(request: Request): void {
    if (request.execute === 'qmp_capabilities') {
      this.send({ return: {}, id: request.id });
    } else {
      this.#requests.push(request);
      this.#news.resolve();
    }
  }
}

async function connectToFake(t: TestContext) {
  const folder = await temporaryFolder();
  const server = createServer().listen(join(folder, 'qmp'));
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const socket = await connectSocket(folder, 'qmp');
  const monitor = new FakeMonitor((await accepted)[0]);
  t.after(() => {
    socket.destroy();
    monitor.socket.destroy();
    server.close();
  });
  return { socket, monitor };
}

async function openFake(t: TestContext) {
  const { socket, monitor } = await connectToFake(t);
  const events: QmpEvent[] = [];
  monitor.send(GREETING);
  const qmp = await QmpClient.open(socket, { greetingTimeoutMs: 5_000, onEvent: (event) => events.push(event) });
  return { qmp, monitor, events };
}

function isQmpError(kind: string, message = /./): (error: unknown) => boolean {
  return (error) => error instanceof QmpError && error.kind === kind && message.test(error.message);
}

test('Answers find their commands by id, in whatever order they come', async (t) => {
  const { qmp, monitor } = await openFake(t);
  const one = qmp.execute('query-status');
  const two = qmp.execute('query-uuid', { of: 'me' });
  const [first, second] = [await monitor.request(), await monitor.request()];
  assert.deepEqual(second.arguments, { of: 'me' });
  monitor.send({ return: 'two', id: second.id }, { return: 'one', id: first.id });
  assert.deepEqual(await Promise.all([one, two]), ['one', 'two']);
});

test('A message may come in pieces, and several in one piece', async (t) => {
  const { qmp, monitor, events } = await openFake(t);
  const answer = qmp.execute('query-name');
  const { id } = await monitor.request();
  const bytes = Buffer.from(`${JSON.stringify({ event: 'A' })}\r\n${JSON.stringify({ return: 'ü', id })}\r\n`);
  for (const byte of bytes) monitor.socket.write(Buffer.of(byte));
  assert.equal(await answer, 'ü');
  assert.deepEqual(events, [{ event: 'A', data: {} }]);
});

test('An event that came before an answer is told before it', async (t) => {
  const { qmp, monitor, events } = await openFake(t);
  const answer = qmp.execute('stop');
  const { id } = await monitor.request();
  monitor.send({ event: 'STOP', data: { a: 1 }, timestamp: {} }, { return: {}, id });
  await answer;
  assert.deepEqual(events, [{ event: 'STOP', data: { a: 1 } }]);
});

test('What QEMU refuses is thrown in its words, and the connection goes on', async (t) => {
  const { qmp, monitor } = await openFake(t);
  const refused = qmp.execute('device_del');
  monitor.send({ error: { class: 'DeviceNotFound', desc: 'no such device' }, id: (await monitor.request()).id });
  await assert.rejects(refused, isQmpError('refused', /device_del: no such device/));
  const next = qmp.execute('query-status');
  monitor.send({ return: 1, id: (await monitor.request()).id });
  assert.equal(await next, 1);
});

test('A command that is not answered in time fails alone, and its late answer is dropped', async (t) => {
  const { qmp, monitor } = await openFake(t);
  const late = qmp.execute('quit', undefined, 1);
  const { id } = await monitor.request();
  await assert.rejects(late, isQmpError('timeout', /quit in 1 ms/));
  const next = qmp.execute('query-status');
  const request = await monitor.request();
  monitor.send({ return: 'late', id }, { return: 'in time', id: request.id });
  assert.equal(await next, 'in time');
});

test('A monitor that serves someone else does not greet and is given up', async (t) => {
  const { socket } = await connectToFake(t);
  await assert.rejects(
    QmpClient.open(socket, { greetingTimeoutMs: 20 }),
    isQmpError('timeout', /did not greet in 20 ms/),
  );
  assert.ok(socket.destroyed);
});

test('Waiting for a greeting ends when it is aborted, with the reason for that', async (t) => {
  const { socket } = await connectToFake(t);
  const abort = new AbortController();
  const opening = QmpClient.open(socket, { greetingTimeoutMs: 60_000, signal: abort.signal });
  abort.abort(new Error('cancelled'));
  await assert.rejects(opening, /cancelled/);
  assert.ok(socket.destroyed);
});

test('When QEMU closes its monitor every command under way fails, and so do later ones', async (t) => {
  const { qmp, monitor } = await openFake(t);
  const pending = [qmp.execute('a'), qmp.execute('b')];
  await monitor.request();
  monitor.socket.end();
  for (const result of await Promise.allSettled(pending)) {
    assert.ok(result.status === 'rejected' && isQmpError('closed')(result.reason));
  }
  assert.equal((await qmp.closed).kind, 'closed');
  await assert.rejects(qmp.execute('c'), isQmpError('closed'));
});

for (const [what, bytes] of [
  ['no JSON', Buffer.from('Welcome to SSH\n')],
  ['no object', Buffer.from('42\n')],
  ['a line without end', Buffer.alloc(5 * 1024 * 1024, 'x')],
] as const) {
  test(`A connection on which ${what} comes is given up as no QMP`, async (t) => {
    const { qmp, monitor } = await openFake(t);
    const pending = qmp.execute('query-status');
    monitor.socket.write(bytes);
    await assert.rejects(pending, isQmpError('protocol'));
    assert.equal((await qmp.closed).kind, 'protocol');
  });
}

test('A socket is reached in a folder whose path is longer than a socket address', async (t) => {
  const folder = join(await temporaryFolder(), 'x'.repeat(120));
  await mkdir(folder);
  const previous = process.cwd();
  process.chdir(folder);
  const server = createServer().listen('qmp');
  await once(server, 'listening');
  process.chdir(previous);
  t.after(() => server.close());
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const socket = await connectSocket(folder, 'qmp');
  socket.destroy();
  (await accepted)[0].destroy();
  await assert.rejects(connectSocket(folder, 'other'), { code: 'ENOENT' });
});
