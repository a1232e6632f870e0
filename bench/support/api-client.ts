import { type HttpAnswer, HttpConnection } from './http-connection.ts';

/** The public API over so many connections; more requests than those wait for one. */
export class ApiClient {
  readonly #headers: Record<string, string>;
  readonly #all: HttpConnection[];
  readonly #free: HttpConnection[];
  readonly #waiting: ((connection: HttpConnection) => void)[] = [];

  private constructor(connections: HttpConnection[], headers: Record<string, string>) {
    this.#all = connections;
    this.#free = [...connections];
    this.#headers = headers;
  }

  static async open(url: string, token: string, connections: number): Promise<ApiClient> {
    return new ApiClient(await Promise.all(Array.from({ length: connections }, () => HttpConnection.open(url))), {
      'content-type': 'application/json',
      authorization: `Bearer ${token}`,
    });
  }

  /** The answer's data. Rejects with whatever errors it has. */
  async query<Data>(query: string, variables: object = {}): Promise<Data> {
    const { body } = await this.post('/graphql', JSON.stringify({ query, variables }));
    const { data, errors } = JSON.parse(body.toString()) as { data?: Data; errors?: unknown };
    if (errors || !data) throw new Error(`the control plane answered ${body.toString().slice(0, 2_000)}`);
    return data;
  }

  /** The payload of a mutation, of which `selection` is read. Rejects where the payload has errors. */
  async mutate<Payload>(name: string, input: object, selection: string): Promise<Payload> {
    const type = `${name[0]!.toUpperCase()}${name.slice(1)}Input!`;
    const query = `mutation ($input: ${type}) { ${name}(input: $input) { ${selection} errors { code message } } }`;
    const data = await this.query<Record<string, Payload & { errors: unknown[] }>>(query, { input });
    const payload = data[name]!;
    if (payload.errors.length > 0) throw new Error(`${name}: ${JSON.stringify(payload.errors)}`);
    return payload;
  }

  async post(path: string, body: string): Promise<HttpAnswer> {
    const connection =
      this.#free.pop() ?? (await new Promise<HttpConnection>((resolve) => this.#waiting.push(resolve)));
    try {
      return await connection.post(path, this.#headers, body);
    } finally {
      const next = this.#waiting.shift();
      if (next) next(connection);
      else this.#free.push(connection);
    }
  }

  close(): void {
    for (const connection of this.#all) connection.close();
  }
}
