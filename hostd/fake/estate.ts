/**
 * What fake hosts of one process share, as real ones share a storage, and what watches over them all: where each VM
 * runs. A VM that starts while it runs elsewhere is the one thing a control plane must never cause.
 */
export class FakeEstate {
  readonly #volumes = new Map<string, 'PRESENT' | 'DELETED'>();
  readonly #runsOn = new Map<string, object>();
  /** How many times a VM was started while it ran already. */
  doubleStarts = 0;

  putVolume(storagePath: string, volumeId: string): void {
    this.#volumes.set(`${storagePath}/${volumeId}`, 'PRESENT');
  }

  deleteVolume(storagePath: string, volumeId: string): void {
    this.#volumes.set(`${storagePath}/${volumeId}`, 'DELETED');
  }

  /** A volume that was never seen here may have been made by another process's host, so only a deleted one is missing. */
  isMissing(storagePath: string, volumeId: string): boolean {
    return this.#volumes.get(`${storagePath}/${volumeId}`) === 'DELETED';
  }

  /** How many volumes there are. */
  get volumes(): number {
    let present = 0;
    for (const state of this.#volumes.values()) if (state === 'PRESENT') present++;
    return present;
  }

  get running(): number {
    return this.#runsOn.size;
  }

  started(vmId: string, host: object): void {
    if (this.#runsOn.has(vmId)) this.doubleStarts++;
    this.#runsOn.set(vmId, host);
  }

  /** Found running by the successor of the daemon that started it. */
  adopted(vmId: string, host: object): void {
    this.#runsOn.set(vmId, host);
  }

  ended(vmId: string, host: object): void {
    if (this.#runsOn.get(vmId) === host) this.#runsOn.delete(vmId);
  }
}
