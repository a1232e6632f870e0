import { hasControlCharacters } from './name.ts';

const PASSWORD_MIN = 12;
const PASSWORD_MAX = 1024;

/** What is hashed: one text however a keyboard composes its accents. @see RFC 8265, OpaqueString */
export const canonicalPassword = (password: string): string => password.normalize('NFC');

/** Why a text can be nobody's password, whatever is asked of new ones; null: it can. Looked at before anything is hashed. */
export function passwordTextProblem(text: string): string | null {
  if (text.length > 2 * PASSWORD_MAX || [...text].length > PASSWORD_MAX) return `At most ${PASSWORD_MAX} characters.`;
  if (!text.isWellFormed()) return 'Holds half of a surrogate pair.';
  return hasControlCharacters(text) ? 'May not hold control characters or line breaks.' : null;
}

/** Why a text is no new password. Length is what makes one hard to guess; nothing else is asked. */
export function passwordProblem(text: string): string | null {
  const problem = passwordTextProblem(text);
  if (problem) return problem;
  return [...canonicalPassword(text)].length < PASSWORD_MIN ? `At least ${PASSWORD_MIN} characters.` : null;
}
