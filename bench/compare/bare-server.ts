import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { RowDataPacket } from 'mysql2';
import { openPool } from '../../src/db/pool.ts';

/**
 * The least that can answer with the same rows: Node's HTTP server, one statement written by hand, JSON.stringify. No
 * schema, no authentication, no limits. The driver and its options are the product's own.
 */
const SQL = `
  select hex(uid) as id, name, description, state, vcpus, memory_mib as memoryMib, generation, epoch,
    created_at as createdAt, updated_at as updatedAt
  from vm where deleted_at is null order by vm.id limit 101`;

const pool = openPool(process.env['DATABASE_URL']!, { connections: 8 }).promise();
// As long as the product keeps an idle connection.
const server = createServer({ keepAliveTimeout: 65_000 }, async (request, response) => {
  request.resume();
  try {
    const [rows] = await pool.query<RowDataPacket[]>(SQL);
    const text = JSON.stringify({ data: { vms: { nodes: rows.slice(0, 100) } } });
    response
      .writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
      .end(text);
  } catch (error) {
    process.stderr.write(`${(error as Error).stack}\n`);
    response.writeHead(500, { 'content-length': 0 }).end();
  }
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ ready: true, url: `http://127.0.0.1:${port}` })}\n`);
});
process.once('SIGTERM', () => {
  server.close(() => void pool.end());
  server.closeIdleConnections();
});
