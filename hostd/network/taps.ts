import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { CommandError } from '../hypervisor.ts';
import { CONFINED_ENVIRONMENT, confine, type QemuUser } from '../qemu/confine.ts';
import { hasInterface, isBridge, readInterface, runIp } from './interfaces.ts';
import { macAddress, type Nic, tapMacAddress, tapName } from './nic.ts';

const TUN_DEVICE = '/dev/net/tun';
/** Of a tap that no guest uses. */
const PROBE_MAC_ADDRESS = 'fe:00:00:00:00:00';

/** VMs can't be attached to the bridge that was asked for. The message is for the operator. */
export class BridgeError extends Error {
  override readonly name = 'BridgeError';
}

/** What a VM has received and sent, as its guest sees it, since its QEMU started. */
export interface Traffic {
  receiveBytes: bigint;
  transmitBytes: bigint;
}

/**
 * The host's ends of the VMs' network interfaces. Each has the name of its VM, so nothing has to be remembered: what is
 * there is counted and removed, whether or not this daemon is told of a bridge. A tap outlives the daemon as its QEMU does.
 */
export class Taps {
  /** The operator's, which VMs that start are attached to; null: they get no interface. */
  readonly bridge: string | null;
  readonly #user: QemuUser | null;
  readonly #ipBinary: string;

  /** `user` is whom QEMU runs as: the only one beside root who may open the taps. */
  constructor(bridge: string | null, user: QemuUser | null, ipBinary = 'ip') {
    this.bridge = bridge;
    this.#user = user;
    this.#ipBinary = ipBinary;
  }

  /** Tries all that a start of a VM will need. Throws `BridgeError`. */
  async check(): Promise<void> {
    const { bridge } = this;
    if (bridge === null) return;
    if (!(await isBridge(bridge))) throw new BridgeError(`--bridge: this machine has no bridge ${bridge}`);
    await this.#checkDevice();
    const probe = `vgprobe${process.pid}`;
    try {
      await this.#make(probe, bridge, PROBE_MAC_ADDRESS, 'virtgraph:probe');
    } catch (error) {
      const reason = (error as Error).message;
      throw new BridgeError(`--bridge: no VM can be attached to ${bridge}: ${reason}`, { cause: error });
    } finally {
      await this.#remove(probe);
    }
  }

  /** Makes the VM's tap anew, for a QEMU that is about to start. Null without a bridge. Throws QEMU_FAILED. */
  async attach(vmId: string): Promise<Nic | null> {
    const mac = macAddress(vmId);
    try {
      // One that was left would still count what a QEMU before has sent.
      await this.remove(vmId);
      if (this.bridge === null) return null;
      const mtuBytes = await this.#make(tapName(vmId), this.bridge, tapMacAddress(mac), `virtgraph:${vmId}`);
      return { tap: tapName(vmId), macAddress: mac, mtuBytes };
    } catch (error) {
      const reason = (error as Error).message;
      throw new CommandError('QEMU_FAILED', `the VM's network interface could not be made: ${reason}`, {
        cause: error,
      });
    }
  }

  /** One that isn't there is the wanted result. */
  async remove(vmId: string): Promise<void> {
    await this.#remove(tapName(vmId));
  }

  /** Null for a VM without an interface. */
  async traffic(vmId: string): Promise<Traffic | null> {
    const tap = tapName(vmId);
    // What the host sends into a tap the guest receives.
    const [receiveBytes, transmitBytes] = await Promise.all([
      readInterface(tap, 'statistics/tx_bytes'),
      readInterface(tap, 'statistics/rx_bytes'),
    ]);
    return receiveBytes === null || transmitBytes === null ? null : { receiveBytes, transmitBytes };
  }

  /** Answers the MTU that the tap has from its bridge. */
  async #make(tap: string, bridge: string, mac: string, alias: string): Promise<number> {
    const mtuBytes = Number((await readInterface(bridge, 'mtu')) ?? missing(bridge));
    const owner = this.#user?.uid ?? process.getuid!();
    await this.#ip('tuntap', 'add', 'dev', tap, 'mode', 'tap', 'user', String(owner));
    // Before it is a port and up. A longer or shorter MTU would become that of the whole bridge, and an address of the
    // host's on this end would be one more way from the guest to the host.
    const settings = ['address', mac, 'mtu', String(mtuBytes), 'addrgenmode', 'none'];
    await this.#ip('link', 'set', 'dev', tap, 'alias', alias, ...settings);
    await this.#ip('link', 'set', 'dev', tap, 'master', bridge, 'up');
    return mtuBytes;
  }

  /** The kernel lets a tap's owner open it, but its device may have been closed to all but root. */
  async #checkDevice(): Promise<void> {
    const [program, ...args] = confine(['test', '-r', TUN_DEVICE, '-a', '-w', TUN_DEVICE], this.#user, {});
    try {
      await promisify(execFile)(program!, args, { env: CONFINED_ENVIRONMENT });
    } catch (error) {
      if ((error as { code?: unknown }).code !== 1) throw error;
      const who = this.#user ? `user ${this.#user.uid}, whom QEMU runs as,` : 'this user';
      throw new BridgeError(`--bridge: ${who} can't read and write ${TUN_DEVICE}, which should have mode 0666`, {
        cause: error,
      });
    }
  }

  async #remove(tap: string): Promise<void> {
    if (!(await hasInterface(tap))) return;
    try {
      await this.#ip('link', 'delete', 'dev', tap);
    } catch (error) {
      if (await hasInterface(tap)) throw error;
    }
  }

  #ip(...args: string[]): Promise<void> {
    return runIp(this.#ipBinary, args);
  }
}

function missing(bridge: string): never {
  throw new Error(`the bridge ${bridge} is gone`);
}
