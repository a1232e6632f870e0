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

/**
 * A name as somebody types it, in the one form that it is kept in. The database takes no notice of spaces behind a text,
 * so whoever counts by names has to count all of these as one.
 */
export const typedName = (text: string): string => text.normalize('NFC').trim();

/** Scripts with letters that look like those of another. Han, kana and the like may stand beside Latin, as people write. */
const LOOK_ALIKE_SCRIPTS = ['Latin', 'Greek', 'Cyrillic', 'Armenian', 'Cherokee', 'Coptic', 'Lisu'].map(
  (script) => new RegExp(`\\p{Script=${script}}`, 'u'),
);
/** Cyrillic and Greek letters that nobody tells from a Latin one. */
const LATIN_LOOK_ALIKES = /^[асеорхуіјѕһӏԁԛԝАВЕКМНОРСТУХІЈЅԌοναΑΒΕΖΗΙΚΜΝΟΡΤΥΧ]+$/u;

/**
 * Why a text is no name of a domain, an account or a user; null: it is one. People sign in with these names and judge by
 * them who did something, so one must not look like another, and they are written one after another with slashes.
 *
 * @see Unicode Technical Standard 39, Restriction-Level Detection
 */
export function identityNameProblem(text: string): string | null {
  const problem = nameProblem(text);
  if (problem) return problem;
  if (text.includes('/')) return 'May not hold a slash.';
  if (/[\p{Default_Ignorable_Code_Point}\p{Cf}]/u.test(text)) return 'May not hold characters that nobody sees.';
  if (text.normalize('NFKC') !== text.normalize('NFC'))
    return 'Holds characters that only look different, such as ligatures or full-width letters.';
  if (LOOK_ALIKE_SCRIPTS.filter((script) => script.test(text)).length > 1)
    return 'Mixes letters of scripts that look alike.';
  const letters = text.replace(/\P{L}/gu, '');
  return LATIN_LOOK_ALIKES.test(letters) ? 'Looks like a name in Latin letters.' : null;
}
