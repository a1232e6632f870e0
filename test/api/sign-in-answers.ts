/** What a sign-in is asked for, and what is answered. */
export const SIGN_IN = `mutation ($input: SignInInput!) { signIn(input: $input) {
  token csrf session { id how secondFactor address userAgent isCurrent user { name } } errors { code message path } } }`;

export interface Told {
  code: string;
  message: string;
  path: string[] | null;
}

export interface SignedIn {
  token: string | null;
  csrf: string | null;
  session: Record<string, unknown> | null;
  errors: Told[];
}

export interface Answered {
  status: number;
  cookies: string[];
  data: Record<string, unknown> | null | undefined;
  errors: { message: string; extensions: { code: string } }[] | undefined;
}
