import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

interface Pending {
  resolve(answer: HttpAnswer): void;
  reject(error: Error): void;
}

export interface HttpAnswer {
  status: number;
  body: Buffer;
}

const HEAD_END = '\r\n\r\n';

/**
 * One kept-alive connection, one request at a time. It understands no more of HTTP than the servers here say, because
 * the load must cost less than what it measures: they share the machine.
 */
export class HttpConnection {
  readonly #socket: Socket;
  readonly #host: string;
  #pending: Pending | null = null;
  #end: Error | null = null;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** Known once the head is there. */
  #expected: { status: number; headBytes: number; totalBytes: number } | null = null;

  private constructor(socket: Socket, host: string) {
    this.#socket = socket;
    this.#host = host;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('close', () => this.#fail(new Error('the server closed the connection')));
    socket.on('error', (error) => this.#fail(error));
  }

  static async open(url: string): Promise<HttpConnection> {
    const { hostname, port, host } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    await once(socket, 'connect');
    return new HttpConnection(socket, host);
  }

  async post(path: string, headers: Record<string, string>, body: string): Promise<HttpAnswer> {
    if (this.#end) throw this.#end;
    if (this.#pending) throw new Error('a request is under way on this connection');
    const all = { host: this.#host, ...headers, 'content-length': Buffer.byteLength(body) };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    this.#expected ??= this.#readHead();
    if (!this.#expected || this.#receivedBytes < this.#expected.totalBytes) return;
    const { status, headBytes, totalBytes } = this.#expected;
    const body = Buffer.concat(this.#received).subarray(headBytes, totalBytes);
    const pending = this.#pending;
    this.#received = [];
    this.#receivedBytes = 0;
    this.#expected = null;
    this.#pending = null;
    pending?.resolve({ status, body });
  }

  #readHead() {
    const text = Buffer.concat(this.#received).toString('latin1');
    const end = text.indexOf(HEAD_END);
    if (end < 0) return null;
    const headBytes = end + HEAD_END.length;
    const length = /^content-length: *(\d+)/im.exec(text.slice(0, end))?.[1];
    if (length === undefined) {
      this.#socket.destroy(new Error(`the server did not say how long its answer is: ${text.slice(0, end)}`));
      return null;
    }
    return { status: Number(text.slice(9, 12)), headBytes, totalBytes: headBytes + Number(length) };
  }

  #fail(error: Error): void {
    this.#end ??= error;
    this.#pending?.reject(error);
    this.#pending = null;
  }
}
