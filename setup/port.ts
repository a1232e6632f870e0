import { once } from 'node:events';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { readable } from './process-search.ts';

/** Null where `port` is free on `host`, or else who listens there, in words. */
export async function portHolder(host: string, port: number): Promise<string | null> {
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    return (await listeningProcess(port)) ?? 'another process';
  }
  probe.close();
  await once(probe, 'close');
  return null;
}

/** Null where the process belongs to somebody else: its descriptors can't be read then. */
async function listeningProcess(port: number): Promise<string | null> {
  const inodes = new Set([...(await listeningInodes('tcp', port)), ...(await listeningInodes('tcp6', port))]);
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    for (const descriptor of await descriptors(pid)) {
      const target = await readable(readlink(`/proc/${pid}/fd/${descriptor}`));
      if (!inodes.has(target)) continue;
      const command = await readable(readFile(`/proc/${pid}/cmdline`, 'utf8'));
      return `process ${pid} (${command.replaceAll('\0', ' ').trim().slice(0, 80)})`;
    }
  }
  return null;
}

async function descriptors(pid: string): Promise<string[]> {
  const list = await readable(readdir(`/proc/${pid}/fd`).then((names) => names.join(' ')));
  return list.split(' ').filter((name) => name !== '');
}

/** @see Linux, Documentation/networking/proc_net_tcp.rst */
async function listeningInodes(table: 'tcp' | 'tcp6', port: number): Promise<string[]> {
  const LISTEN = '0A';
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  const rows = (await readable(readFile(`/proc/net/${table}`, 'utf8'))).split('\n').slice(1);
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${hexPort}`) && fields[3] === LISTEN)
    .map((fields) => `socket:[${fields[9]}]`);
}
