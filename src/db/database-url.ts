const PROTOCOLS = ['mysql:', 'mariadb:'];

/** As the help texts say it. */
export const DATABASE_URL_FORM = 'mysql://user:password@host:port/database, or …?socket=/path; also mariadb://';

/**
 * What is wrong with the URL of a database that stood in `variable`, for whoever set it; null: nothing. The URL itself
 * is not repeated, for it may hold a password.
 */
export function databaseUrlProblem(variable: string, url: string): string | null {
  const protocol = URL.parse(url)?.protocol;
  if (protocol && PROTOCOLS.includes(protocol)) return null;
  return `${variable} is not the URL of a MariaDB or MySQL: ${DATABASE_URL_FORM}.`;
}
