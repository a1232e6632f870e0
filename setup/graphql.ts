import { type Client, CloseCode, createClient } from 'graphql-ws';

const REQUEST_TIMEOUT_MS = 30_000;
const REFUSALS: number[] = [CloseCode.Unauthorized, CloseCode.Forbidden];

/** What a mutation answered in its `errors`, or the server instead of data. */
export class GraphqlFailure extends Error {
  readonly codes: readonly string[];

  constructor(errors: readonly ApiError[]) {
    super(errors.map((error) => (codeOf(error) ? `${error.message} (${codeOf(error)})` : error.message)).join('; '));
    this.name = 'GraphqlFailure';
    this.codes = errors.flatMap((error) => codeOf(error) ?? []);
  }
}

/** An entry of a payload's `errors`, or of the answer's own. */
interface ApiError {
  message: string;
  code?: string;
  extensions?: { code?: string };
}

const codeOf = ({ code, extensions }: ApiError): string | undefined => code ?? extensions?.code;

interface MutationPayload {
  errors: { code: string; message: string }[];
}

/** The public API as any client uses it: HTTP for operations, graphql-ws for subscriptions, one token for both. */
export class ControlApi {
  readonly #endpoint: string;
  readonly #authorization: string;
  readonly #socket: Client;
  readonly #signal: AbortSignal;

  /** @param url of the control plane, without a path; when `signal` is aborted every call ends with its reason. */
  constructor(url: string, token: string, signal: AbortSignal) {
    this.#signal = signal;
    this.#endpoint = new URL('/graphql', url).href;
    this.#authorization = `Bearer ${token}`;
    this.#socket = createClient({
      url: this.#endpoint.replace(/^http/, 'ws'),
      connectionParams: { authorization: this.#authorization },
      // A connection that broke is made again; one that the server refused would be refused again.
      shouldRetry: (end) => !REFUSALS.includes(Object(end).code),
    });
  }

  /** Rejects with `GraphqlFailure` where the answer has errors. */
  async request<Data>(query: string, variables: object = {}): Promise<Data> {
    const response = await fetch(this.#endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: this.#authorization },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.any([this.#signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]),
    });
    const { data, errors } = (await response.json()) as { data?: Data; errors?: ApiError[] };
    if (errors || !data) throw new GraphqlFailure(errors ?? [{ message: `HTTP status ${response.status}` }]);
    return data;
  }

  /**
   * Calls the mutation `name` and answers its payload, of which `selection` is read. Rejects with `GraphqlFailure`
   * where the payload has errors.
   */
  async mutate<Payload>(name: string, input: object, selection: string): Promise<Payload> {
    const type = `${name[0]!.toUpperCase()}${name.slice(1)}Input!`;
    const query = `mutation($input: ${type}) { ${name}(input: $input) { ${selection} errors { code message } } }`;
    const { [name]: payload } = await this.request<Record<string, Payload & MutationPayload>>(query, { input });
    if (payload!.errors.length > 0) throw new GraphqlFailure(payload!.errors);
    return payload!;
  }

  /**
   * Reconnects by itself; leaving the loop ends the subscription. It ends silently when `until` is aborted, and rejects
   * where the server answers errors.
   */
  async *subscribe<Data>(query: string, variables: Record<string, unknown>, until?: AbortSignal): AsyncGenerator<Data> {
    const end = AbortSignal.any([this.#signal, ...(until ? [until] : [])]);
    const events = this.#socket.iterate<Data>({ query, variables });
    const stop = () => events.return?.();
    end.addEventListener('abort', stop);
    try {
      if (end.aborted) stop();
      for await (const { data, errors } of events) {
        if (errors || !data) throw new GraphqlFailure(errors ?? [{ message: 'the subscription sent no data' }]);
        yield data;
      }
    } catch (error) {
      // graphql-ws throws what it was closed with, which isn't an Error.
      throw error instanceof Error ? error : new GraphqlFailure([{ message: closeReason(error) }]);
    } finally {
      end.removeEventListener('abort', stop);
    }
    this.#signal.throwIfAborted();
  }

  async close(): Promise<void> {
    await this.#socket.dispose();
  }
}

function closeReason(thrown: unknown): string {
  const { code, reason } = Object(thrown) as { code?: number; reason?: string };
  return code ? `the connection was closed: ${code} ${reason ?? ''}`.trim() : JSON.stringify(thrown);
}
