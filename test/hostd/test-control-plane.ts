import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { buildSchema, GraphQLError } from 'graphql';
import { CloseCode } from 'graphql-ws';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import type {
  Command,
  CommandReportInput,
  HeartbeatInput,
  OpenSessionInput,
  ProgressInput,
  RegisterInput,
  VmObservationInput,
} from '../../hostd/generated/protocol.ts';

const SCHEMA = buildSchema(await readFile(new URL('../../schema/hostd.graphql', import.meta.url), 'utf8'));

/** All that a host said, in the order in which it said it. */
export type Said =
  | { said: 'register'; input: RegisterInput }
  | { said: 'openSession'; credential: string; sessionId: string; input: OpenSessionInput }
  | { said: 'heartbeat'; input: HeartbeatInput }
  | { said: 'reportCommands'; reports: CommandReportInput[] }
  | { said: 'reportProgress'; progress: ProgressInput[] }
  | { said: 'reportVms'; sessionId: string; vms: VmObservationInput[] }
  | { said: 'sendSerial'; commandId: string; offset: string; text: string };
type SaidOf<What extends Said['said']> = Extract<Said, { said: What }>;

interface Context {
  credential: string;
}

/** A control plane of a test's own: the host protocol over a real WebSocket, and a memory of what was said. */
export class TestControlPlane {
  readonly said: Said[] = [];
  heartbeatMs = 60_000;
  /** What to answer; a test may replace each. */
  answers = {
    heartbeat: (_input: HeartbeatInput): boolean | Promise<boolean> => true,
    reportCommands: (_reports: CommandReportInput[]): boolean | Promise<boolean> => true,
    reportVms: (_vms: VmObservationInput[]): boolean | Promise<boolean> => true,
    sendSerial: (): boolean => true,
    register: (input: RegisterInput): { hostId: string; credential: string } => ({
      hostId: `host_${input.name}`,
      credential: `secret of ${input.name}`,
    }),
    authenticate: (_credential: string): boolean => true,
  };
  url = '';
  readonly #http = createServer();
  readonly #wss = new WebSocketServer({ server: this.#http, path: '/hostd' });
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Map<string, CommandQueue>();
  readonly #waiting = new Set<() => void>();
  #sessionCount = 0;

  static async start(): Promise<TestControlPlane> {
    const plane = new TestControlPlane();
    const wss = plane.#wss;
    useServer(
      {
        schema: SCHEMA,
        roots: plane.#roots(),
        context: ({ connectionParams }): Context => ({ credential: toCredential(connectionParams) }),
        onConnect: ({ connectionParams, extra }) => {
          if (plane.answers.authenticate(toCredential(connectionParams))) return true;
          extra.socket.close(CloseCode.Forbidden, 'Forbidden');
          return false;
        },
      },
      wss,
    );
    plane.#http.on('connection', (socket) => {
      plane.#sockets.add(socket);
      socket.on('close', () => plane.#sockets.delete(socket));
    });
    await plane.listen(0);
    return plane;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  async listen(port: number): Promise<void> {
    this.#http.listen(port, '127.0.0.1');
    await once(this.#http, 'listening');
    this.url = `ws://127.0.0.1:${this.port}`;
  }

  /** Breaks every connection as a power cut would. */
  cut(): void {
    for (const client of this.#wss.clients) client.terminate();
  }

  /** Stops reading and answering, while the sockets stay open: a link that was dropped silently. */
  freeze(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  async stop(): Promise<void> {
    const closed = once(this.#http, 'close');
    this.#http.close();
    this.cut();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Sends commands, in one message, to every session that is open. */
  command(...commands: Command[]): void {
    for (const queue of this.#sessions.values()) queue.push(commands);
  }

  /** The server ends the subscription of each session. */
  endSessions(): void {
    for (const queue of this.#sessions.values()) queue.end();
    this.#sessions.clear();
  }

  /** All of one kind that was said so far. */
  all<What extends Said['said']>(what: What): SaidOf<What>[] {
    return this.said.filter((one): one is SaidOf<What> => one.said === what);
  }

  /** Waits until the `count`-th of its kind, from 1, was said. */
  async hears<What extends Said['said']>(what: What, count = 1): Promise<SaidOf<What>> {
    await this.until(() => this.all(what).length >= count);
    return this.all(what)[count - 1]!;
  }

  /** Waits for a report of the command. */
  async answer(commandId: string): Promise<CommandReportInput> {
    const find = () =>
      this.all('reportCommands')
        .flatMap(({ reports }) => reports)
        .find((one) => one.commandId === commandId);
    await this.until(() => find() !== undefined);
    return find()!;
  }

  /** Waits, woken by everything that is said, until the condition holds. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #hear(one: Said): void {
    this.said.push(one);
    this.wake();
  }

  /** Lets `until` look again. */
  wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #roots() {
    return {
      query: { protocolVersion: 1 },
      mutation: {
        register: ({ input }: { input: RegisterInput }, { credential }: Context) => {
          if (credential !== '') throw new GraphQLError('registering needs no credential');
          this.#hear({ said: 'register', input });
          return this.answers.register(input);
        },
        openSession: ({ input }: { input: OpenSessionInput }, { credential }: Context) => {
          const sessionId = `session-${++this.#sessionCount}`;
          this.#sessions.set(sessionId, new CommandQueue());
          this.#hear({ said: 'openSession', credential, sessionId, input });
          return { sessionId, heartbeatMs: this.heartbeatMs, hostId: credential.replace('secret of ', 'host_') };
        },
        heartbeat: ({ input }: { input: HeartbeatInput }) => {
          this.#hear({ said: 'heartbeat', input });
          return this.answers.heartbeat(input);
        },
        reportCommands: ({ reports }: { reports: CommandReportInput[] }) => {
          this.#hear({ said: 'reportCommands', reports });
          return this.answers.reportCommands(reports);
        },
        reportProgress: ({ progress }: { progress: ProgressInput[] }) => {
          this.#hear({ said: 'reportProgress', progress });
          return true;
        },
        reportVms: ({ sessionId, vms }: { sessionId: string; vms: VmObservationInput[] }) => {
          this.#hear({ said: 'reportVms', sessionId, vms });
          return this.answers.reportVms(vms);
        },
        sendSerial: ({ commandId, offset, base64 }: { commandId: string; offset: string; base64: string }) => {
          this.#hear({ said: 'sendSerial', commandId, offset, text: Buffer.from(base64, 'base64').toString() });
          return this.answers.sendSerial();
        },
      },
      subscription: {
        commands: ({ sessionId }: { sessionId: string }) => {
          const queue = this.#sessions.get(sessionId);
          if (!queue) throw new GraphQLError('no such session');
          return queue.read(() => {
            if (this.#sessions.get(sessionId) === queue) this.#sessions.delete(sessionId);
          });
        },
      },
    };
  }
}

/** Commands on their way to one session. */
class CommandQueue {
  #batches: Command[][] = [];
  #ended = false;
  #more = Promise.withResolvers<void>();

  push(commands: Command[]): void {
    this.#batches.push(commands);
    this.#more.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#more.resolve();
  }

  async *read(left: () => void): AsyncGenerator<{ commands: Command[] }> {
    try {
      while (!this.#ended) {
        for (const commands of this.#batches.splice(0)) yield { commands };
        if (this.#ended) return;
        await this.#more.promise;
        this.#more = Promise.withResolvers();
      }
    } finally {
      left();
    }
  }
}

function toCredential(params: unknown): string {
  const { authorization } = (params ?? {}) as { authorization?: string };
  return authorization?.replace(/^Bearer /, '') ?? '';
}
