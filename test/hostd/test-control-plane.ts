import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
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
  Registration,
  Renewal,
  VmObservationInput,
} from '../../hostd/generated/protocol.ts';
import { TestAuthority } from '../support/test-authority.ts';

/** What a host tells of the token. */
export const JOIN_SECRET = 'vgj_a-secret-of-the-tests';

const SCHEMA = buildSchema(await readFile(new URL('../../schema/hostd.graphql', import.meta.url), 'utf8'));

/** All that a host said, in the order in which it said it. */
export type Said =
  | { said: 'register'; input: RegisterInput }
  | { said: 'renewCertificate'; certificateRequest: string; shown: string }
  | { said: 'openSession'; host: string; shown: string; sessionId: string; input: OpenSessionInput }
  | { said: 'heartbeat'; input: HeartbeatInput }
  | { said: 'reportCommands'; reports: CommandReportInput[] }
  | { said: 'reportProgress'; progress: ProgressInput[] }
  | { said: 'reportVms'; sessionId: string; vms: VmObservationInput[] }
  | { said: 'sendSerial'; commandId: string; offset: string; text: string };
type SaidOf<What extends Said['said']> = Extract<Said, { said: What }>;

interface Context {
  /** Name of the host by its certificate; null: it shows none. */
  host: string | null;
  /** SHA-256 of that certificate. */
  shown: string;
}

/** A control plane of a test's own: the host protocol over TLS and a real WebSocket, and a memory of what was said. */
export class TestControlPlane {
  readonly said: Said[] = [];
  heartbeatMs = 60_000;
  /** What to answer; a test may replace each. */
  answers = {
    heartbeat: (_input: HeartbeatInput): boolean | Promise<boolean> => true,
    reportCommands: (_reports: CommandReportInput[]): boolean | Promise<boolean> => true,
    reportVms: (_vms: VmObservationInput[]): boolean | Promise<boolean> => true,
    sendSerial: (): boolean => true,
    register: (input: RegisterInput): Promise<Registration> => this.admit(input),
    renewCertificate: (host: string, certificateRequest: string): Promise<Renewal> =>
      this.certify(host, certificateRequest),
    /** False: closed with 4403. */
    authenticate: (_host: string | null): boolean => true,
  };
  /** How long the certificates of its hosts hold. */
  certificateMs = 24 * 3_600_000;
  /** How much of that is over when they are issued: a daemon that is started with such a one renews at once. */
  certificateAgeMs = 0;
  url = '';
  readonly authority: TestAuthority;
  readonly #http: Server;
  readonly #wss: WebSocketServer;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Map<string, CommandQueue>();
  readonly #waiting = new Set<() => void>();
  #sessionCount = 0;

  private constructor(authority: TestAuthority, http: Server) {
    this.authority = authority;
    this.#http = http;
    this.#wss = new WebSocketServer({ server: http, path: '/hostd' });
  }

  static async start(): Promise<TestControlPlane> {
    const authority = await TestAuthority.make();
    const { cert, key } = await authority.ofControlPlane();
    const http = createServer({ cert, key, ca: authority.certificate, requestCert: true, rejectUnauthorized: false });
    const plane = new TestControlPlane(authority, http);
    const wss = plane.#wss;
    useServer(
      {
        schema: SCHEMA,
        roots: plane.#roots(),
        context: ({ extra }): Context => callerOf(extra.request.socket as TLSSocket),
        onConnect: ({ extra }) => {
          if (plane.answers.authenticate(callerOf(extra.request.socket as TLSSocket).host)) return true;
          extra.socket.close(CloseCode.Forbidden, 'Forbidden');
          return false;
        },
      },
      wss,
    );
    // Both ends of a connection: the one that TLS reads from, and the one that others read from.
    for (const event of ['connection', 'secureConnection'])
      plane.#http.on(event, (socket: Socket) => {
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
    this.url = `https://127.0.0.1:${this.port}`;
  }

  /** For `--token`: it admits to this control plane. */
  get joinToken(): string {
    return `${JOIN_SECRET}.${this.authority.fingerprint.toString('base64url')}`;
  }

  async admit({ name, certificateRequest }: RegisterInput): Promise<Registration> {
    return { hostId: `host_${name}`, ...(await this.certify(name, certificateRequest)) };
  }

  async certify(host: string, certificateRequest: string): Promise<Renewal> {
    const certificate = await this.authority.ofHost(
      host,
      certificateRequest,
      this.certificateMs,
      Date.now() - this.certificateAgeMs,
    );
    return { certificate, authority: this.authority.certificate };
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
        register: ({ input }: { input: RegisterInput }, { host }: Context) => {
          if (host !== null) throw new GraphQLError('registering needs no certificate');
          this.#hear({ said: 'register', input });
          return this.answers.register(input);
        },
        renewCertificate: ({ certificateRequest }: { certificateRequest: string }, { host, shown }: Context) => {
          if (host === null) throw new GraphQLError('a certificate is needed');
          this.#hear({ said: 'renewCertificate', certificateRequest, shown });
          return this.answers.renewCertificate(host, certificateRequest);
        },
        openSession: ({ input }: { input: OpenSessionInput }, { host, shown }: Context) => {
          if (host === null) throw new GraphQLError('a certificate is needed');
          const sessionId = `session-${++this.#sessionCount}`;
          this.#sessions.set(sessionId, new CommandQueue());
          this.#hear({ said: 'openSession', host, shown, sessionId, input });
          return { sessionId, heartbeatMs: this.heartbeatMs, hostId: `host_${host}` };
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

function callerOf(socket: TLSSocket): Context {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate || !socket.authorized) return { host: null, shown: '' };
  return { host: certificate.subject.replace('CN=', ''), shown: certificate.fingerprint256 };
}
