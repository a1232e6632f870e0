import { setImmediate as turnOfTheLoop } from 'node:timers/promises';
import { type ExecutionResult, type GraphQLSchema, Kind, type SelectionSetNode } from 'graphql';
import type { WebSocket } from 'ws';
import type { Caller } from './call.ts';
import type { Edge } from './edge.ts';
import { endSource } from './event-stream.ts';
import type { Operation } from './execute.ts';
import { Member } from './fan-out-member.ts';
import { scopeOf } from './sessions.ts';

/**
 * `extensions.shareable` of a subscription's field. It promises that each event has the `id` of one object (and a
 * `kind`, where there are several), and that its payload is the whole present state of that object. An event without an
 * id, or a payload with errors, ends the sharing with later subscribers, never the subscription.
 */
export type Shareable = true | ShareableOptions;

export interface ShareableOptions {
  /** The object has left, like a deleted one: its payload is delivered, and not remembered for later subscribers. */
  hasLeft?(event: unknown): boolean;
  /** Whether the promise holds for what is selected: each field of it changes only with an event of the object. */
  fits?(schema: GraphQLSchema, selection: SelectionSetNode): boolean;
}

/** Of what one execution remembers for those who come later. */
const REMEMBERED_BYTES = 8 * 1024 * 1024;

/**
 * Identical subscriptions of the same authorisation scope are executed once; each payload is serialised once and
 * written to every socket. Who comes later gets the last payload of each object, which together are the present, and
 * from then on every change: no second execution, no gap, nothing older after newer.
 */
export class FanOut {
  readonly #edge: Edge;
  /** Those that take new members, by what makes subscriptions identical. */
  readonly #groups = new Map<string, Group>();
  readonly #all = new Set<Group>();

  constructor(edge: Edge) {
    this.#edge = edge;
  }

  /** Null: each subscriber of this one has an execution of its own. */
  shareable({ node }: Operation): ShareableOptions | null {
    const { schema } = this.#edge.pipeline;
    const [field, ...others] = node.selectionSet.selections;
    if (field?.kind !== Kind.FIELD || others.length > 0) return null;
    const extension = schema.getSubscriptionType()?.getFields()[field.name.value]?.extensions['shareable'];
    if (!extension) return null;
    const options = extension === true ? {} : (extension as ShareableOptions);
    return !options.fits || (field.selectionSet && options.fits(schema, field.selectionSet)) ? options : null;
  }

  /** @returns what stays open until the subscription ends, while payloads go to the socket; or why it can't be */
  async join(
    operation: Operation,
    shareable: ShareableOptions,
    caller: Caller,
    socket: WebSocket,
    id: string,
  ): Promise<Member | ExecutionResult> {
    const { query, operationName, variables } = operation.params;
    const key = JSON.stringify([query, operationName, canonical(variables), scopeOf(caller.actor)]);
    let group = this.#groups.get(key);
    if (!group) {
      group = new Group(this.#edge, operation, shareable, caller, {
        onSealed: (sealed) => this.#forget(key, sealed),
        onEnded: (ended) => {
          this.#forget(key, ended);
          this.#all.delete(ended);
          this.#edge.metrics.sharedExecutions.set(this.#all.size);
        },
      });
      this.#groups.set(key, group);
      this.#all.add(group);
      this.#edge.metrics.sharedExecutions.set(this.#all.size);
    }
    const { metrics, limits } = this.#edge;
    metrics.subscriptions.inc();
    return group.join(new Member(socket, id, limits, () => metrics.subscriptions.dec()));
  }

  #forget(key: string, group: Group): void {
    if (this.#groups.get(key) === group) this.#groups.delete(key);
  }

  stop(): void {
    for (const group of this.#all) group.end();
  }
}

interface GroupHooks {
  onSealed(group: Group): void;
  onEnded(group: Group): void;
}

class Group {
  readonly #edge: Edge;
  readonly #operation: Operation;
  /** The first: whoever else is of the same scope sees the same. */
  readonly #caller: Caller;
  readonly #hooks: GroupHooks;
  readonly #hasLeft: (event: unknown) => boolean;
  readonly #members = new Set<Member>();
  /** The last payload of each object, as JSON. */
  readonly #present = new Map<string, string>();
  readonly #stop = new AbortController();
  readonly #opened: Promise<ExecutionResult | null>;
  #presentBytes = 0;
  #sealed = false;
  #source: AsyncIterator<unknown> | undefined;

  constructor(edge: Edge, operation: Operation, shareable: ShareableOptions, caller: Caller, hooks: GroupHooks) {
    this.#edge = edge;
    this.#operation = operation;
    this.#hasLeft = shareable.hasLeft ?? (() => false);
    this.#caller = caller;
    this.#hooks = hooks;
    this.#opened = this.#open();
  }

  async join(member: Member): Promise<Member | ExecutionResult> {
    this.#members.add(member);
    member.onLeave(() => this.#leave(member));
    // In the same turn as it becomes a member: nothing can come between the present and the changes.
    if (this.#source) member.start(this.#present);
    const refused = await this.#opened;
    if (!refused) return member;
    await member.return();
    return refused;
  }

  end(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#hooks.onEnded(this);
    for (const member of this.#members) member.complete();
    if (this.#source) endSource(this.#source, this.#edge.log);
  }

  #context(): object {
    return this.#edge.contextFor(this.#caller, this.#stop.signal);
  }

  async #open(): Promise<ExecutionResult | null> {
    const source = await this.#edge.pipeline.open(this.#operation, this.#context(), this.#caller.requestId);
    if (!(Symbol.asyncIterator in source)) {
      this.end();
      return source;
    }
    this.#source = source[Symbol.asyncIterator]();
    if (this.#stop.signal.aborted) {
      endSource(this.#source, this.#edge.log);
      return null;
    }
    for (const member of this.#members) member.start(this.#present);
    void this.#run(this.#source);
    return null;
  }

  async #run(source: AsyncIterator<unknown>): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await source.next();
        if (done || this.#stop.signal.aborted) break;
        const result = await this.#edge.pipeline.execute(
          this.#operation,
          this.#context(),
          this.#caller.requestId,
          value,
        );
        this.#deliver(value, result);
        // A burst of events that need no I/O would fill the buffer of a client that had no chance to read.
        if (this.#members.values().some((member) => member.isLagging)) await turnOfTheLoop();
      }
    } catch (error) {
      const shown = this.#edge.pipeline.shown(error, this.#caller.requestId);
      for (const member of this.#members) member.fail(shown);
    }
    this.end();
  }

  #deliver(event: unknown, result: ExecutionResult): void {
    const payload = JSON.stringify(result);
    const key = result.errors ? null : keyOf(event);
    if (key === null) this.#seal();
    else if (!this.#sealed) this.#remember(key, payload, this.#hasLeft(event));
    const remembered = key !== null && this.#present.get(key) === payload ? key : null;
    for (const member of this.#members) member.offer(payload, remembered, key);
    if (this.#sealed && !this.#members.values().some((member) => member.owes)) this.#present.clear();
    this.#edge.metrics.deliveries.inc(this.#members.size);
  }

  #remember(key: string, payload: string, gone: boolean): void {
    this.#presentBytes += (gone ? 0 : payload.length) - (this.#present.get(key)?.length ?? 0);
    if (gone) this.#present.delete(key);
    else this.#present.set(key, payload);
    if (this.#presentBytes > REMEMBERED_BYTES) this.#seal();
  }

  /** From now on nothing more is remembered, so nobody can join. What is there is kept for those who are owed of it. */
  #seal(): void {
    if (this.#sealed) return;
    this.#sealed = true;
    this.#hooks.onSealed(this);
  }

  #leave(member: Member): void {
    this.#members.delete(member);
    if (this.#members.size === 0) this.end();
  }
}

function keyOf(event: unknown): string | null {
  if (typeof event !== 'object' || event === null) return null;
  const { kind, id } = event as { kind?: unknown; id?: unknown };
  return typeof id === 'string' || typeof id === 'number' ? `${kind ?? ''}:${id}` : null;
}

/** The same text for the same variables, in whatever order they are written. */
const canonical = (variables: Record<string, unknown>): [string, unknown][] =>
  Object.entries(variables).sort(([a], [b]) => (a < b ? -1 : 1));
