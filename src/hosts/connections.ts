interface Connection {
  /** Of the certificate that it was opened with. */
  version: number;
  endsAt: number;
  end: (why: string) => void;
}

/**
 * The connections that hosts have opened to this process, each with the certificate that it rests on: what is no longer
 * accepted is no longer spoken with, whatever was open.
 */
export class HostConnections {
  readonly #byHost = new Map<number, Set<Connection>>();

  /** @returns to be called when it has ended */
  opened(host: { id: number; version: number; certificateEnds: Date }, end: (why: string) => void): () => void {
    const connection: Connection = { version: host.version, endsAt: host.certificateEnds.getTime(), end };
    const all = this.#byHost.get(host.id) ?? new Set();
    this.#byHost.set(host.id, all.add(connection));
    return () => {
      if (all.delete(connection) && all.size === 0) this.#byHost.delete(host.id);
    };
  }

  has(hostId: number): boolean {
    return this.#byHost.has(hostId);
  }

  /** @param floor lowest version that is accepted; null: none, for the host is no more */
  accept(hostId: number, floor: number | null): void {
    for (const { version, end } of this.#byHost.get(hostId) ?? []) {
      if (floor === null) end('This host was deleted.');
      else if (version < floor) end('The certificate of this host was revoked or replaced.');
    }
  }

  /**
   * Ends what was opened with a certificate that has expired since; and what was revoked, in case nobody could be told.
   *
   * @param floorOf as of `accept`; undefined: not known
   */
  sweep(floorOf: (hostId: number) => number | undefined, now = Date.now()): void {
    for (const [hostId, connections] of this.#byHost) {
      for (const { endsAt, end } of connections) if (endsAt <= now) end('The certificate of this host has expired.');
      const floor = floorOf(hostId);
      if (floor !== undefined) this.accept(hostId, floor);
    }
  }
}
