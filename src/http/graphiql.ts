import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { sendJson } from './health.ts';

/**
 * The page runs with what we serve and nothing else. Monaco sets styles inline and has its fonts and icons in data URLs.
 */
const PAGE_HEADERS: Record<string, string> = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "worker-src 'self'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

/** What a new tab shows. What is commented out is meant to be run too, with ids of one's own. */
export const DEFAULT_QUERY = `# Welcome to Virtgraph: the whole estate is one graph.
# Ctrl-Space completes, Ctrl-Enter runs, and the book
# on the left describes every type and field.

# Zone → pod → cluster → host, and what runs there.
query Estate {
  zones {
    nodes {
      id
      name
      vms(first: 20) {
        nodes {
          id
          name
          state
          allowedActions
        }
      }
    }
  }
}

# Whatever takes time is a job. Start one …
#
# mutation Start {
#   startVm(input: { id: "vm_…" }) {
#     job { id }
#     errors { code message path }
#   }
# }

# … and watch it: the present first, then each change.
#
# subscription Watch {
#   jobProgress(id: "job_…") {
#     state
#     progressPercent
#     currentStep { name done total unit }
#   }
# }
`;

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Virtgraph – GraphiQL</title>
<link rel="icon" href="/graphiql/icon.svg">
<link rel="stylesheet" href="/graphiql/graphiql.css">
<style>
  html, body, #root { height: 100%; margin: 0; }
  #root { display: flex; flex-direction: column; font: 1rem/1.5 system-ui, sans-serif; }
  .graphiql-page { flex: 1; min-height: 0; }
  .graphiql-page .graphiql-container { height: 100%; }
  header { display: flex; justify-content: flex-end; align-items: center; gap: 1rem; padding: .25rem 1rem;
    border-bottom: 1px solid #e3e6eb; background: #fff; color: #3b4658; font-size: .875rem; }
  header button { padding: .125rem .75rem; border: 1px solid #b6bfcd; border-radius: 4px; background: none; color: inherit;
    font: inherit; cursor: pointer; }
  header [role=alert] { color: #8c1d18; }
  .sign-in { box-sizing: border-box; width: 22rem; max-width: 100%; margin: auto; padding: 2rem 1rem; color: #1f2733; }
  .sign-in h1 { margin: 0 0 1.5rem; font-size: 1.5rem; font-weight: 600; }
  .sign-in form { display: grid; gap: 1rem; }
  .sign-in [hidden] { display: none; }
  .sign-in label { font-size: .875rem; color: #3b4658; }
  .sign-in input { display: block; box-sizing: border-box; width: 100%; margin-top: .25rem; padding: .5rem .625rem;
    border: 1px solid #b6bfcd; border-radius: 4px; background: #fff; color: #1f2733; font: 1rem/1.5 system-ui, sans-serif; }
  .sign-in :focus-visible { outline: 2px solid #1c4ed8; outline-offset: 1px; }
  .sign-in button { padding: .5rem; border: 0; border-radius: 4px; background: #1c4ed8; color: #fff; font: inherit;
    cursor: pointer; }
  .sign-in button:disabled { opacity: .6; cursor: default; }
  .sign-in [role=alert] { margin: 0; padding-left: .75rem; border-left: 3px solid #b3261e; color: #8c1d18;
    font-size: .875rem; }
  .sign-in details { margin-top: 2rem; padding-top: 1rem; border-top: 1px solid #e3e6eb; }
  .sign-in summary { color: #3b4658; font-size: .875rem; cursor: pointer; }
  .sign-in details form { margin-top: 1rem; }
</style>
</head>
<body>
<noscript>GraphiQL needs JavaScript.</noscript>
<div id="root"></div>
<script type="text/plain" id="default-query">${DEFAULT_QUERY}</script>
<script defer src="/graphiql/graphiql.js"></script>
<script type="module" src="/graphiql/start.js"></script>
</body>
</html>
`;

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1c4ed8"/><g fill="none" stroke="#fff" stroke-width="2"><path d="M16 8 8 22h16z"/></g><g fill="#fff"><circle cx="16" cy="8" r="3"/><circle cx="8" cy="22" r="3"/><circle cx="24" cy="22" r="3"/></g></svg>`;

const JAVASCRIPT = 'text/javascript; charset=utf-8';
const HTML = 'text/html; charset=utf-8';

type Encoding = 'br' | 'gzip' | 'identity';

interface File {
  type: string;
  etag: string;
  text: string;
  /** Compressed once each, when first asked for. */
  encoded: Map<Encoding, Promise<Buffer>>;
}

/** GraphiQL from our own files: no network but ours is needed. Loaded when first asked for, as it is 9 MB. */
export class GraphiqlPage {
  #files: Promise<Map<string, File>> | undefined;

  async send(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#files ??= loadFiles();
    const file = (await this.#files).get(path === '/graphiql/' ? '/graphiql' : path);
    if (!file)
      return sendJson(response, 404, { error: { code: 'NOT_FOUND', message: 'There is nothing at this path.' } });
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return sendJson(
        response,
        405,
        { error: { code: 'INVALID_INPUT', message: 'Send GET.' } },
        { allow: 'GET, HEAD' },
      );

    const encoding = encodingFor(request.headers['accept-encoding']);
    const etag = `"${file.etag}-${encoding}"`;
    const headers = { etag, 'cache-control': 'no-cache', vary: 'accept-encoding', ...PAGE_HEADERS };
    if (request.headers['if-none-match'] === etag) {
      response.writeHead(304, headers).end();
      return;
    }
    const body = await encoded(file, encoding);
    response
      .writeHead(200, {
        ...headers,
        'content-type': file.type,
        'content-length': body.length,
        ...(encoding === 'identity' ? {} : { 'content-encoding': encoding }),
      })
      .end(request.method === 'HEAD' ? undefined : body);
  }
}

async function loadFiles(): Promise<Map<string, File>> {
  const [graphiql, start] = await Promise.all([
    import('@graphql-yoga/render-graphiql/graphiql'),
    readFile(new URL('graphiql-start.js', import.meta.url), 'utf8'),
  ]);
  const texts: [path: string, type: string, text: string][] = [
    ['/graphiql', HTML, PAGE],
    ['/graphiql/start.js', JAVASCRIPT, start],
    ['/graphiql/graphiql.js', JAVASCRIPT, graphiql.js],
    ['/graphiql/graphiql.css', 'text/css; charset=utf-8', graphiql.css],
    ['/graphiql/graphql-worker.js', JAVASCRIPT, graphiql.graphqlWorker],
    ['/graphiql/json-worker.js', JAVASCRIPT, graphiql.jsonWorker],
    ['/graphiql/editor-worker.js', JAVASCRIPT, graphiql.editorWorkerService],
    ['/graphiql/icon.svg', 'image/svg+xml', ICON],
  ];
  return new Map(
    texts.map(([path, type, text]) => [
      path,
      { type, text, etag: createHash('sha256').update(text).digest('base64url').slice(0, 16), encoded: new Map() },
    ]),
  );
}

function encodingFor(accepted: string | string[] | undefined): Encoding {
  const names = String(accepted ?? '')
    .split(',')
    .map((part) => part.split(';')[0]!.trim());
  if (names.includes('br')) return 'br';
  return names.includes('gzip') ? 'gzip' : 'identity';
}

const brotli = promisify(brotliCompress);
const zip = promisify(gzip);

function encoded(file: File, encoding: Encoding): Promise<Buffer> {
  let body = file.encoded.get(encoding);
  if (!body) {
    body = compress(Buffer.from(file.text), encoding);
    file.encoded.set(encoding, body);
  }
  return body;
}

async function compress(bytes: Buffer, encoding: Encoding): Promise<Buffer> {
  // Quality 5 takes a third of a second for the largest file; 11 takes ten.
  if (encoding === 'br') return await brotli(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } });
  return encoding === 'gzip' ? await zip(bytes) : bytes;
}
