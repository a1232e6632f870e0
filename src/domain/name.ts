// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
export const NAME_MAX = 255;

export const hasControlCharacters = (text: string): boolean => CONTROL.test(text);

/** Why a text is no name; null: it is one. Any script, emoji too: names are shown, never executed. */
export function nameProblem(text: string): string | null {
  if (!text.isWellFormed()) return 'Holds half of a surrogate pair.';
  if ([...text].length > NAME_MAX) return `At most ${NAME_MAX} characters.`;
  if (text.trim() === '') return 'May not be empty.';
  if (text !== text.trim()) return 'May not begin or end with white space.';
  return hasControlCharacters(text) ? 'May not hold control characters or line breaks.' : null;
}
