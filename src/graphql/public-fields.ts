/**
 * What may be asked without a token: how somebody becomes known. Each is by itself to bear whoever asks, as often as he
 * likes: it counts tries, takes as long for what is not there, and tells nothing else.
 */
export const PUBLIC_FIELDS = { query: ['signInProviders'], mutation: ['signIn', 'beginOidcSignIn'] } as const;
