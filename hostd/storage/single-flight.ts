import type { Run } from '../hypervisor.ts';

interface Flight<T> {
  result: Promise<T>;
  abort: AbortController;
  passengers: Set<Run>;
}

/** Work that many may ask for at once is done once. It is given up when the last of those who wait for it gives up. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** Throws what `work` throws, or the reason of the run's signal, then at once. */
  async join(key: string, run: Run, work: (shared: Run) => Promise<T>): Promise<T> {
    run.signal.throwIfAborted();
    const underway = this.#flights.get(key);
    if (underway?.abort.signal.aborted) {
      // Given up, but still tidying: what it leaves must not be met halfway.
      await underway.result.catch(() => undefined);
      return this.join(key, run, work);
    }
    const flight = underway ?? this.#depart(key, work);
    const left = Promise.withResolvers<never>();
    const leave = (): void => {
      flight.passengers.delete(run);
      if (flight.passengers.size === 0) flight.abort.abort(run.signal.reason);
      left.reject(run.signal.reason);
    };
    flight.passengers.add(run);
    run.signal.addEventListener('abort', leave, { once: true });
    try {
      const result = await Promise.race([flight.result, left.promise]);
      return result;
    } catch (error) {
      // The last to leave sees the work wound up, so that nothing is left when it is told.
      if (flight.abort.signal.aborted) await flight.result.catch(() => undefined);
      throw error;
    } finally {
      run.signal.removeEventListener('abort', leave);
      flight.passengers.delete(run);
    }
  }

  #depart(key: string, work: (shared: Run) => Promise<T>): Flight<T> {
    const abort = new AbortController();
    const passengers = new Set<Run>();
    const shared: Run = {
      signal: abort.signal,
      progress: (done, total, unit) => {
        for (const passenger of passengers) passenger.progress(done, total, unit);
      },
    };
    // Begins only when the first passenger is aboard.
    const result = Promise.resolve().then(() => work(shared));
    const flight = { result, abort, passengers };
    this.#flights.set(key, flight);
    const land = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    result.then(land, land);
    return flight;
  }
}
