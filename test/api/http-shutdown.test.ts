import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { suite, test } from 'node:test';
import { connect as connectSecurely } from 'node:tls';
import { promisify } from 'node:util';
import { CONTROL_PLANE_NAME } from '../../src/hosts/certificates.ts';
import { TestAuthority } from '../support/test-authority.ts';
import { startEdge, TestSocket } from './http-fixture.ts';

suite('Closing', () => {
  test('lets a request in flight end, and takes no other', async () => {
    const edge = await startEdge();
    const reached = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<void>();
    edge.world.reachedSlow = reached.resolve;
    edge.world.finishSlow = finish.promise;
    const inFlight = edge.ask('{ slow }');
    await reached.promise;
    const closed = edge.server.close();
    await assert.rejects(fetch(`${edge.server.url}/healthz`));
    finish.resolve();
    const answer = await inFlight;
    assert.deepEqual(answer.body.data, { slow: 'finished' });
    await closed;
  });

  test('does not wait for ever for a request that does not end', async () => {
    const edge = await startEdge({ limits: { drainMs: 30 } });
    const reached = Promise.withResolvers<void>();
    edge.world.reachedSlow = reached.resolve;
    const inFlight = edge.ask('{ slow }');
    await reached.promise;
    const logged = edge.nextLog('"status":499');
    await Promise.all([edge.server.close(), assert.rejects(inFlight), logged]);
    assert.equal(edge.world.aborted, 1);
  });

  test('closes WebSockets with 1001 and ends what they had open', async () => {
    const edge = await startEdge();
    edge.world.set('a', 1);
    const client = await new TestSocket(edge.server.url).signIn();
    for (const field of ['boxChanged', 'boxChangedAlone']) {
      client.subscribe(field, `subscription { ${field} { id } }`);
      await client.next();
    }
    const host = await new TestSocket(edge.server.url, '/hostd').signIn({ authorization: 'Bearer host' });
    const unnamed = await new TestSocket(edge.server.url).open();
    await edge.server.close();
    for (const socket of [client, host, unnamed]) assert.equal((await socket.closed).code, 1001);
    assert.equal(edge.world.openSources, 0);
  });

  test('ends event streams', async () => {
    const edge = await startEdge();
    const response = await fetch(`${edge.server.url}/graphql?query=subscription{boxChangedAlone{id}}`, {
      headers: { authorization: 'Bearer secret-token', accept: 'text/event-stream' },
    });
    await Promise.all([edge.server.close(), response.text()]);
    assert.equal(edge.world.openSources, 0);
  });

  test('does not wait for who asked for a WebSocket where there is none, and never closes his side', async () => {
    const edge = await startEdge({ limits: { drainMs: 30 } });
    const socket = connect({ port: edge.server.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.write('GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    const [answer] = await once(socket, 'data');
    assert.match(String(answer), /^HTTP\/1\.1 404 /);
    await edge.server.close();
    socket.destroy();
  });

  test('does not wait for who begins a request at the port of hosts and does not end it', async () => {
    const authority = await TestAuthority.make();
    const secure = { host: '127.0.0.1', port: 0, authority: authority.certificate, programs: [] };
    const certificate = await authority.ofControlPlane();
    const edge = await startEdge({ limits: { drainMs: 30 }, secure: { ...secure, certificate } });
    const { port } = edge.server.secure!;
    const socket = connectSecurely({
      port,
      host: '127.0.0.1',
      ca: authority.certificate,
      servername: CONTROL_PLANE_NAME,
    });
    const ended = once(socket, 'close');
    await once(socket, 'session');
    socket.write('GET / HTTP/1.1\r\nhost: a\r\n');
    await edge.ask('{ actor }');
    await edge.server.close();
    await ended;
  });

  test('may be asked for twice', async () => {
    const edge = await startEdge();
    await Promise.all([edge.server.close(), edge.server.close()]);
  });

  test('leaves nothing that keeps the process alive', async () => {
    const program = `
      const { startEdge, TestSocket } = await import(${JSON.stringify(new URL('http-fixture.ts', import.meta.url).href)});
      const edge = await startEdge();
      edge.world.set('a', 1);
      await edge.ask('{ actor }');
      await (await fetch(edge.server.url + '/graphiql')).text();
      await (await fetch(edge.server.url + '/metrics')).text();
      const socket = await new TestSocket(edge.server.url).signIn();
      socket.subscribe('1', 'subscription { boxChanged { id } }');
      await socket.next();
      await edge.server.close();
      console.log('closed');
    `;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
      timeout: 20_000,
    });
    // It ended by itself: one that has to be killed rejects.
    assert.equal(stdout, 'closed\n');
  });

  test('says where it listens, and refuses a port that is taken', async () => {
    await using edge = await startEdge();
    assert.match(edge.server.url, new RegExp(`^http://127\\.0\\.0\\.1:${edge.server.port}$`));
    await assert.rejects(startEdge({ port: edge.server.port }), { code: 'EADDRINUSE' });
  });
});
