import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import { Authorities } from './authority.ts';
import { Dispatcher } from './commands/dispatch.ts';
import { holdDataFolder } from './data-folder.ts';
import type { FakeConfig } from './fake/config.ts';
import type { GivenUp } from './given-up.ts';
import type { Hypervisor } from './hypervisor.ts';
import { IdentityStore } from './identity.ts';
import { type JoinToken, parseJoinToken } from './join-token.ts';
import { FileJournal, type Journal, MemoryJournal } from './journal.ts';
import { LINK_TIMING, Link, type LinkTiming } from './link.ts';
import { Slots } from './slots.ts';

export type HypervisorChoice = 'auto' | 'kvm' | 'tcg' | 'fake';

export interface HostdOptions {
  /** Control planes, at their ports for hosts: https or wss; `/hostd` is added to an address without a path. At least one. */
  urls: readonly string[];
  /** Name to register with; of several hosts, the first part of each name. */
  name: string;
  /** Needed until the host is registered, and again when its certificate is not accepted any more. */
  joinToken?: string | undefined;
  /** Folder of this daemon's own; absent: it remembers nothing. */
  dataPath?: string | undefined;
  /** Folder of the images that templates are made of. */
  imagePath?: string | undefined;
  /** What to drive, or what makes the hypervisor of each host by its position from 0. By default `auto`. */
  hypervisor?: HypervisorChoice | ((position: number) => Hypervisor) | undefined;
  /** Bridge of this machine that QEMU's VMs are attached to; absent: they have no network interface. */
  bridge?: string | undefined;
  /** How many hosts this process is; more than one only of fakes, which then keep journal and VMs in memory. */
  count?: number | undefined;
  /** Delays and faults of the fake. */
  fake?: FakeConfig | undefined;
  journal?: ((position: number) => Journal) | undefined;
  timing?: Partial<LinkTiming> | undefined;
  /** By default silent. */
  log?: Logger | undefined;
}

/** A daemon was asked for that can't be. The message is for the operator. */
export class HostdOptionsError extends Error {
  override readonly name = 'HostdOptionsError';
}

interface Host {
  position: number;
  hypervisor: Hypervisor;
  journal: Journal;
  link: Link;
  dispatcher: Dispatcher;
}

const HANDSHAKES_AT_ONCE = 32;

/** A running host daemon. */
export class Hostd {
  readonly #hosts: Host[];
  readonly #identities: IdentityStore;
  readonly #letGo: () => Promise<void>;
  #ending: Promise<void> | null = null;

  constructor(hosts: Host[], identities: IdentityStore, letGo: () => Promise<void>) {
    this.#hosts = hosts;
    this.#identities = identities;
    this.#letGo = letGo;
  }

  /** In order of position; only those that are registered. */
  get hostIds(): string[] {
    return this.#hosts.flatMap(({ position }) => this.#identities.get(position).identity?.hostId ?? []);
  }

  get hypervisors(): Hypervisor[] {
    return this.#hosts.map(({ hypervisor }) => hypervisor);
  }

  /** Answers that wait to be acknowledged, over all hosts. */
  get unacknowledged(): number {
    return this.#hosts.reduce((sum, { link }) => sum + link.unacknowledged, 0);
  }

  /** Commands that wait or run, over all hosts. */
  get underway(): number {
    return this.#hosts.reduce((sum, { dispatcher }) => sum + dispatcher.underway, 0);
  }

  /**
   * Returns once every host has a session. Rejects when the daemon is closed first, and with the first `GivenUp`. It has
   * still to be closed then.
   */
  async linked(): Promise<void> {
    await Promise.all(this.#hosts.map(({ link }) => link.linked));
  }

  /** Resolves, with why, once none of its hosts will have a link any more. */
  async givenUp(): Promise<GivenUp> {
    const [why] = await Promise.all(this.#hosts.map(({ link }) => link.givenUp));
    return why!;
  }

  /** Ends the links in order and interrupts commands; VMs are left alone. */
  close(): Promise<void> {
    this.#ending ??= this.#end(({ link }) => link.close());
    return this.#ending;
  }

  /** Ends as if the process died: sockets break, nothing under way is written or told any more. */
  kill(): Promise<void> {
    this.#ending ??= this.#end(({ link }) => link.kill());
    return this.#ending;
  }

  async #end(endLink: (host: Host) => Promise<void>): Promise<void> {
    await Promise.all(
      this.#hosts.map(async (host) => {
        // The link first: an answer that is written after it is there for the next daemon to tell.
        await endLink(host);
        await host.dispatcher.close();
        await host.hypervisor.close();
        await host.journal.close();
      }),
    );
    await this.#letGo();
  }
}

/**
 * Starts a host daemon, which then seeks its link by itself: `linked()` tells when it has one. Throws
 * `HostdOptionsError`, `DataFolderInUse`, `JournalError`, and what the hypervisor's start throws.
 */
export async function startHostd(options: HostdOptions): Promise<Hostd> {
  const { name, dataPath, count = 1, log = pino({ level: 'silent' }) } = options;
  const urls = options.urls.map(toLinkUrl);
  const joinToken = options.joinToken === undefined ? null : toJoinToken(options.joinToken);
  if (urls.length === 0) throw new HostdOptionsError('no control plane to link to');
  if (!Number.isSafeInteger(count) || count < 1) throw new HostdOptionsError('there must be at least one host');
  if (count > 1 && (options.hypervisor ?? 'auto') !== 'fake' && typeof options.hypervisor !== 'function') {
    throw new HostdOptionsError('only fake hosts can be several in one process');
  }

  const letGo = dataPath === undefined ? async () => undefined : await holdDataFolder(dataPath);
  try {
    const identities = await IdentityStore.open(dataPath === undefined ? null : join(dataPath, 'identity.json'));
    const positions = Array.from({ length: count }, (_, position) => position);
    if (joinToken === null && positions.some((position) => identities.get(position).identity === null)) {
      throw new HostdOptionsError('this host is not registered yet: give it a join token');
    }
    const makeHypervisor = await hypervisorMaker(options, count, log);
    const authorities = new Authorities();
    const handshakes = new Slots(HANDSHAKES_AT_ONCE);
    const start = (position: number): Promise<Host> =>
      startHost({
        position,
        log: count === 1 ? log : log.child({ host: position + 1 }),
        hypervisor: makeHypervisor(position),
        journal: () => openJournal(options, position, count, log),
        link: {
          urls,
          name: count === 1 ? name : `${name}-${String(position + 1).padStart(4, '0')}`,
          joinToken,
          authorities,
          store: {
            get: () => identities.get(position),
            put: (kept) => identities.put(position, kept),
          },
          handshakes,
          timing: { ...LINK_TIMING, ...options.timing },
        },
      });
    return new Hostd(await Promise.all(positions.map(start)), identities, letGo);
  } catch (error) {
    await letGo();
    throw error;
  }
}

async function startHost(parts: {
  position: number;
  log: Logger;
  hypervisor: Hypervisor;
  journal: () => Promise<Journal>;
  link: Pick<
    ConstructorParameters<typeof Link>[0],
    'urls' | 'name' | 'joinToken' | 'authorities' | 'store' | 'handshakes' | 'timing'
  >;
}): Promise<Host> {
  const { position, log, hypervisor } = parts;
  const journal = await parts.journal();
  const link = new Link({ ...parts.link, hypervisor, epochOf: (vmId) => journal.epochOf(vmId), log });
  const dispatcher = new Dispatcher({ hypervisor, journal, uplink: link, log });
  try {
    await hypervisor.start((vm) => link.vmChanged(vm));
    // A VM that runs at an epoch proves that it was given, even to a host that lost its journal.
    await Promise.all(hypervisor.observe().map(({ vmId, epoch }) => journal.adopt(vmId, epoch)));
  } catch (error) {
    await hypervisor.close();
    await journal.close();
    throw error;
  }
  link.start({
    commands: (commands) => dispatcher.receive(commands),
    lost: () => dispatcher.endStreams(),
  });
  return { position, hypervisor, journal, link, dispatcher };
}

async function openJournal(options: HostdOptions, position: number, count: number, log: Logger): Promise<Journal> {
  if (options.journal) return options.journal(position);
  if (count > 1 || options.dataPath === undefined) return new MemoryJournal();
  return FileJournal.open(join(options.dataPath, 'journal'), { log });
}

/** Only what is chosen is loaded. */
async function hypervisorMaker(
  options: HostdOptions,
  count: number,
  log: Logger,
): Promise<(position: number) => Hypervisor> {
  const { hypervisor = 'auto', dataPath, imagePath, bridge, fake } = options;
  if (typeof hypervisor === 'function') return hypervisor;
  if (hypervisor === 'fake') {
    const { FakeHypervisor } = await import('./fake/hypervisor.ts');
    const { FakeEstate } = await import('./fake/estate.ts');
    const estate = new FakeEstate();
    const remembers = count === 1 && dataPath !== undefined;
    return () =>
      new FakeHypervisor({
        log,
        estate,
        ...(fake === undefined ? {} : { config: fake }),
        ...(remembers ? { statePath: join(dataPath, 'fake.json') } : {}),
      });
  }
  if (dataPath === undefined || imagePath === undefined) {
    throw new HostdOptionsError('a host with QEMU needs a data folder and an image folder');
  }
  const { QemuHypervisor } = await import('./qemu/hypervisor.ts');
  return () =>
    new QemuHypervisor({ dataPath, imagePath, bridge, log, ...(hypervisor === 'auto' ? {} : { accel: hypervisor }) });
}

/** Throws `HostdOptionsError`. */
function toLinkUrl(text: string): string {
  const url = URL.parse(text);
  if (url?.protocol !== 'https:' && url?.protocol !== 'wss:')
    throw new HostdOptionsError(
      `${text} is no address for hosts of a control plane: https://… with its port for hosts`,
    );
  const path = url.pathname === '/' ? '/hostd' : url.pathname;
  return `wss://${url.host}${path}`;
}

/** Throws `HostdOptionsError`. */
function toJoinToken(text: string): JoinToken {
  const token = parseJoinToken(text);
  if (!token) throw new HostdOptionsError('this is no join token: take the whole of what createHostJoinToken tells');
  return token;
}
