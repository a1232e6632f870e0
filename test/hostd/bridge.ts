import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { TestContext } from 'node:test';
import { tapName } from '../../hostd/network/nic.ts';
import { run } from './own-network.ts';
import { temporaryFolder } from './temporary-folder.ts';

/** Not an address of anybody's. @see RFC 5737 */
const NETWORK = '192.0.2';

/** Makes a bridge, with an MTU that isn't the usual one, that ends with the test, in a network that is the test's own. */
export function aBridge(t: TestContext, name: string): string {
  run('ip', 'link', 'add', name, 'type', 'bridge');
  // Set by itself, or the bridge goes on to follow its ports.
  run('ip', 'link', 'set', name, 'mtu', '1450', 'up');
  t.after(() => {
    if (existsSync(`/sys/class/net/${name}`)) run('ip', 'link', 'delete', name);
  });
  return name;
}

/** Gives out addresses on the bridge, 192.0.2.10 first. */
export async function serveAddresses(t: TestContext, bridge: string): Promise<void> {
  run('ip', 'addr', 'add', `${NETWORK}.1/24`, 'dev', bridge);
  const folder = await temporaryFolder();
  const settings = [
    ...[`interface ${bridge}`, `start ${NETWORK}.10`, `end ${NETWORK}.10`],
    ...['option subnet 255.255.255.0', `option router ${NETWORK}.1`],
    ...[`lease_file ${folder}/leases`, `pidfile ${folder}/pid`],
  ];
  await writeFile(join(folder, 'leases'), '');
  await writeFile(join(folder, 'udhcpd.conf'), settings.join('\n'));
  const server = spawn('busybox', ['udhcpd', '-f', join(folder, 'udhcpd.conf')], { stdio: 'ignore' });
  await once(server, 'spawn');
  t.after(() => ended(server));
}

/** Sends so many packets of 1000 bytes to every guest of the bridge; none of them answers. */
export async function sendToAll(packets: number): Promise<void> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, `${NETWORK}.1`, resolve));
  socket.setBroadcast(true);
  for (let i = 0; i < packets; i++) {
    await new Promise<void>((resolve, reject) =>
      socket.send(Buffer.alloc(1_000), 9, `${NETWORK}.255`, (error) => (error ? reject(error) : resolve())),
    );
  }
  socket.close();
}

/** What the host has for a VM's network; null: nothing. */
export function tapOf(vmId: string) {
  const folder = `/sys/class/net/${tapName(vmId)}`;
  if (!existsSync(folder)) return null;
  const read = (file: string): string => readFileSync(join(folder, file), 'utf8').trim();
  return {
    index: read('ifindex'),
    owner: read('owner'),
    alias: read('ifalias'),
    mtu: read('mtu'),
    bridge: basename(readlinkSync(join(folder, 'master'))),
  };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}
