import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** Whether it is a filter as RFC 4515 has it, like `(uid=anna)`. */
export function isFilter(text: string): boolean {
  // The parser lets it pass when the last ones are left out.
  let depth = 0;
  for (const character of text) depth += character === '(' ? 1 : character === ')' ? -1 : 0;
  if (!text.startsWith('(') || depth !== 0) return false;
  // Loaded by the first who sets a directory up, at once: an input is checked without waiting.
  const { FilterParser } = require('ldapts') as typeof import('ldapts');
  try {
    FilterParser.parseString(text);
    return true;
  } catch {
    // What is none is told to whoever sent it.
    return false;
  }
}
