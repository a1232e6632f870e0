import type { Logger } from 'pino';
import type { HeartbeatInput } from './generated/protocol.ts';
import type { HostUsage, Hypervisor } from './hypervisor.ts';

/** What a heartbeat tells of the load: the newest numbers that can be had in time. */
export class UsageMeter {
  readonly #hypervisor: Hypervisor;
  readonly #log: Logger;
  #newest: HostUsage = { cpuLoad: 0, memoryUsedMib: 0, vms: [] };
  #measuring: Promise<void> | null = null;

  constructor(hypervisor: Hypervisor, log: Logger) {
    this.#hypervisor = hypervisor;
    this.#log = log;
  }

  /** A hypervisor that is slow to tell, or fails to, must not make its host seem dead: the last numbers stand then. */
  async read(timeoutMs: number): Promise<Omit<HeartbeatInput, 'sessionId'>> {
    this.#measuring ??= this.#measure();
    const timer = Promise.withResolvers<void>();
    const timeout = setTimeout(timer.resolve, timeoutMs);
    await Promise.race([this.#measuring, timer.promise]);
    clearTimeout(timeout);
    return { ...this.#newest, vms: this.#newest.vms.map(encodeUsage) };
  }

  async #measure(): Promise<void> {
    try {
      this.#newest = await this.#hypervisor.usage();
    } catch (error) {
      this.#log.warn({ err: error }, 'usage could not be measured');
    } finally {
      this.#measuring = null;
    }
  }
}

function encodeUsage(vm: HostUsage['vms'][number]): HeartbeatInput['vms'][number] {
  return {
    vmId: vm.vmId,
    cpuNs: String(vm.cpuNs),
    memoryBytes: String(vm.memoryBytes),
    diskReadBytes: String(vm.diskReadBytes),
    diskWriteBytes: String(vm.diskWriteBytes),
    networkReceiveBytes: vm.networkReceiveBytes === null ? null : String(vm.networkReceiveBytes),
    networkTransmitBytes: vm.networkTransmitBytes === null ? null : String(vm.networkTransmitBytes),
  };
}
