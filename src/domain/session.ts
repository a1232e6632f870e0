const MINUTE = 60_000;

/** How somebody showed who he is. */
export const SIGN_IN_METHODS = ['PASSWORD', 'OIDC', 'LDAP'] as const;
export type SignInMethod = (typeof SIGN_IN_METHODS)[number];

/** Where identity providers send people back to, and how long somebody may take to sign in there. */
export const SIGN_IN_CALLBACK = '/sign-in/oidc/callback';
export const PENDING_SIGN_IN_MS = 10 * MINUTE;

/** A session ends by itself so long after it was opened, and so long after it was used last. */
export const SESSION_MS = 12 * 60 * MINUTE;
export const SESSION_IDLE_MS = 60 * MINUTE;
/** One that is good for nothing but setting up a second factor. */
export const ENROLMENT_MS = 15 * MINUTE;
/** A user has at most so many; a further one ends that which was used the longest ago. */
export const SESSIONS_PER_USER = 50;
