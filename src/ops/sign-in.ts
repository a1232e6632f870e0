import { type RawBuilder, type SqlBool, sql } from 'kysely';
import { isOutage, unavailable } from '../db/failure.ts';
import { isDomainOpen } from '../db/principal.ts';
import type { User } from '../db/tables.ts';
import { emptyTransition, holdAsSeen, type NewAudit, patch, type Write } from '../db/transition.ts';
import { type ErrorCode, type UserErrorData, VirtgraphError } from '../domain/errors.ts';
import { typedName } from '../domain/name.ts';
import type { SignInMethod } from '../domain/session.ts';
import type { OpsContext, Via } from './context.ts';
import { signInByDirectory } from './directory-sign-in.ts';
import { INPUTS, type Inputs } from './inputs.ts';
import { MAX_DEPTH } from './move.ts';
import { inputError } from './mutation.ts';
import { useOfCode, WRONG_CODE } from './second-factor.ts';
import { openSession } from './session.ts';
import type { TokenPayload } from './told-once.ts';

export interface SignInVia extends Via {
  userAgent: string | null;
}

/** One answer for a name that is not there, a password that is wrong and whoever is let in no more. */
const WRONG: UserErrorData = {
  code: 'UNAUTHENTICATED',
  message: 'Nobody is let in with these: the domain, account, user or password is wrong, or switched off.',
  path: null,
};
const CODE_WANTED: UserErrorData = {
  code: 'SECOND_FACTOR_REQUIRED',
  message: 'Send the code that your authenticator shows, or a recovery code, as `code`.',
  path: ['code'],
};
const MUST_ENROL: UserErrorData = {
  code: 'SECOND_FACTOR_ENROLMENT_REQUIRED',
  message: 'Your domain asks for a second factor: this session is good for setting one up, with `beginTotp`.',
  path: null,
};

type Candidate = Pick<
  User,
  | 'id'
  | 'account_id'
  | 'updated_at'
  | 'password_hash'
  | 'totp_seed'
  | 'totp_confirmed_at'
  | 'totp_step'
  | 'recovery_hashes'
> & { actor: string; open: number };

/**
 * Signs a user in by his password, and by a code where he has a second factor. A name that is not there takes as long,
 * and is answered and limited alike. What is refused is in `errors`, never thrown, and on the audit trail; with
 * SECOND_FACTOR_ENROLMENT_REQUIRED there is a session too, which is good for that alone.
 *
 * @throws VirtgraphError UNAVAILABLE
 */
export async function signIn(context: OpsContext, raw: unknown, via: SignInVia): Promise<TokenPayload> {
  const parsed = INPUTS.signIn.safeParse(raw);
  if (!parsed.success) return refused(parsed.error.issues.map(inputError));
  const { account, user, ...rest } = parsed.data;
  const input = { ...rest, account: typedName(account), user: typedName(user) };
  try {
    return await admit(context, input, via);
  } catch (error) {
    if (isOutage(error)) throw unavailable(error);
    if (!(error instanceof VirtgraphError)) throw error;
    // Too many tries: they are not worth a record each, which would be a way to fill the trail.
    return refused([error.data]);
  }
}

async function admit(context: OpsContext, input: Inputs['signIn'], via: SignInVia): Promise<TokenPayload> {
  const path = domainNames(input.domain ?? '/');
  const takeBack = context.signInLimits.begin(JSON.stringify([path, input.account, input.user]), via.address);
  let how: SignInMethod = 'PASSWORD';
  let user = await candidate(context, named(path, input));
  const { right, outdated } = await context.passwords.verify(input.password, user?.password_hash ?? null);
  if (!right) {
    // Whoever is not known by a password here: a wrong one, too, or the time would tell who is.
    const id = await signInByDirectory(context, domainAt(path), input, via);
    if (id === null) return await refuse(context, user ?? null, WRONG, via);
    how = 'LDAP';
    user = await candidate(context, sql<SqlBool>`user.id = ${id}`);
  }
  if (user?.open !== 1) return await refuse(context, user ?? null, WRONG, via);

  const writes: Write[] = [];
  const hasFactor = user.totp_confirmed_at !== null;
  if (hasFactor) {
    if (!input.code) {
      takeBack();
      return await refuse(context, user, CODE_WANTED, via);
    }
    const takeCodeBack = context.signInLimits.beginCode(user.id);
    const used = useOfCode(context, user, input.code);
    if (!used) return await refuse(context, user, WRONG_CODE, via);
    takeCodeBack();
    writes.push(used);
  }
  if (right) writes.push(await stillRight(context, user, input.password, outdated));
  const opened = await openSession(context, {
    userId: user.id,
    how,
    secondFactor: hasFactor,
    via,
    userAgent: via.userAgent,
    writes,
  });
  // Another has used the code, or changed the password, a moment ago.
  if (opened.kind === 'stale') return await refuse(context, user, hasFactor ? WRONG_CODE : WRONG, via);
  if (opened.kind === 'shut') return await refuse(context, user, WRONG, via);
  takeBack();
  return { id: opened.id, jobId: null, token: opened.token, errors: opened.enrolling ? [MUST_ENROL] : [] };
}

/** `/sales/emea` and `sales/emea`: names from below the root down. */
export const domainNames = (path: string): string[] =>
  path
    .split('/')
    .map(typedName)
    .filter((name) => name !== '');

/** One statement, whether or not there is such a domain, account or user. */
async function candidate({ db }: OpsContext, which: RawBuilder<SqlBool>): Promise<Candidate | undefined> {
  const { rows } = await sql<Candidate>`
    select user.id, user.account_id, user.updated_at, user.password_hash, user.totp_seed, user.totp_confirmed_at,
      user.totp_step, user.recovery_hashes, concat(account.name, '/', user.name) as actor,
      (user.wanted_state = 'ENABLED' and account.wanted_state = 'ENABLED' and ${isDomainOpen}) as open
    from user
    inner join account on account.id = user.account_id and account.deleted_at is null
    inner join domain on domain.id = account.domain_id
    where user.deleted_at is null and ${which}`.execute(db);
  return rows[0];
}

const named = (path: string[], { account, user }: { account: string; user: string }): RawBuilder<SqlBool> =>
  sql<SqlBool>`user.name = ${user} and account.name = ${account}
    and domain.id = ${domainAt(path)}`;

export function domainAt(path: string[]): RawBuilder<number> {
  if (path.length >= MAX_DEPTH) return sql<number>`0`;
  return path.reduce(
    (parent, name) => sql<number>`(
      select id from domain as child
      where child.parent_id = ${parent} and child.name = ${name} and child.deleted_at is null)`,
    sql<number>`(select id from domain as root where root.parent_id is null)`,
  );
}

/** The password may be another by now, which ends what the old one opens; one that was hashed weakly is hashed anew. */
async function stillRight(
  { passwords }: OpsContext,
  user: Candidate,
  password: string,
  outdated: boolean,
): Promise<Write> {
  const { id, updated_at } = user;
  if (!outdated) return holdAsSeen('user', id, { password_hash: user.password_hash });
  const password_hash = await passwords.hash(password);
  return patch('user', id, { password_hash: user.password_hash }, { password_hash, updated_at });
}

/** Whom it was about is recorded only if there is such a user: what people mistake for their name may be their password. */
async function refuse(
  context: OpsContext,
  user: Candidate | null,
  error: UserErrorData,
  via: Via,
): Promise<TokenPayload> {
  await context.writer.submit({ ...emptyTransition(), audits: [refusal(user, error.code, via)] });
  return refused([error]);
}

const refusal = (user: Candidate | null, code: ErrorCode, { address, requestId }: Via): NewAudit => ({
  action: 'signIn',
  outcome: 'REFUSED',
  code,
  actor: user?.actor ?? 'anonymous',
  userId: user?.id ?? null,
  credential: null,
  address,
  accountId: user?.account_id ?? null,
  subject: user ? { kind: 'user', id: user.id } : null,
  jobId: null,
  reason: null,
  changes: [],
  requestId,
});

const refused = (errors: UserErrorData[]): TokenPayload => ({ id: null, jobId: null, errors, token: null });
