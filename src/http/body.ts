import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { limitExceeded } from './limits.ts';
import { malformed, Refusal } from './refusal.ts';

/** The JSON of a request's body. @throws Refusal; a plain Error when the caller went away */
export async function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    throw malformed('Send the body without content-encoding.', 415);
  if (Number(request.headers['content-length']) > maxBytes) throw tooLarge(maxBytes);
  const bytes = await readBytes(request, maxBytes);
  if (!isUtf8(bytes)) throw malformed('The body is not UTF-8.');
  try {
    return JSON.parse(bytes.toString());
  } catch (error) {
    throw malformed(`The body is not JSON: ${(error as SyntaxError).message}`);
  }
}

function readBytes(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) {
        // What still comes is dropped; the answer closes the connection.
        request.removeAllListeners('data').resume();
        reject(tooLarge(maxBytes));
      } else chunks.push(chunk);
    });
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
    request.on('error', reject);
  });
}

const tooLarge = (maxBytes: number): Refusal =>
  new Refusal([limitExceeded(`The body is larger than the ${maxBytes} bytes allowed.`)], {
    status: 413,
    headers: { connection: 'close' },
  });
