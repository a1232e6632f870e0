export type MediaType = 'application/json' | 'application/graphql-response+json' | 'text/event-stream';

const OFFERED: Record<string, MediaType> = {
  'application/json': 'application/json',
  'application/graphql-response+json': 'application/graphql-response+json',
  'text/event-stream': 'text/event-stream',
  'application/*': 'application/json',
  '*/*': 'application/json',
};

/** What the caller likes best of what there is; null: nothing of it. */
export function acceptedType(accept: string | undefined): MediaType | null {
  if (accept === undefined || accept === '' || accept === '*/*') return 'application/json';
  let best: MediaType | null = null;
  let bestQuality = 0;
  for (const range of accept.split(',')) {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const offered = OFFERED[name];
    const quality = qualityOf(parameters);
    if (offered && quality > bestQuality) [best, bestQuality] = [offered, quality];
  }
  return best;
}

function qualityOf(parameters: string[]): number {
  const q = parameters.find((parameter) => parameter.startsWith('q='));
  return q === undefined ? 1 : Number(q.slice(2)) || 0;
}

/** Whether a body is JSON in UTF-8, the only form there is. */
export function isJson(contentType: string | undefined): boolean {
  if (contentType === 'application/json') return true;
  const [name = '', ...parameters] = (contentType ?? '').split(';').map((part) => part.trim().toLowerCase());
  const charset = parameters
    .find((parameter) => parameter.startsWith('charset='))
    ?.slice(8)
    .replaceAll('"', '');
  return name === 'application/json' && (charset === undefined || charset === 'utf-8' || charset === 'utf8');
}
