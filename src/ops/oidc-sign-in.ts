import { createHash, timingSafeEqual } from 'node:crypto';
import { isOutage, unavailable } from '../db/failure.ts';
import { SealBroken } from '../db/sealer.ts';
import type { IdentityProvider } from '../db/tables.ts';
import { emptyTransition, insert, type NewAudit } from '../db/transition.ts';
import { notFound, type UserErrorData, VirtgraphError } from '../domain/errors.ts';
import type { OidcSettings } from '../domain/identity-provider.ts';
import { decodeIdOf } from '../domain/ids.ts';
import { PENDING_SIGN_IN_MS, SIGN_IN_CALLBACK } from '../domain/session.ts';
import type { OidcClient, OidcPending } from '../sign-in/oidc.ts';
import { ProviderRefused } from '../sign-in/refused.ts';
import type { OpsContext, Payload } from './context.ts';
import { admitExternal, auditOf } from './external-user.ts';
import { secretOf } from './identity-provider.ts';
import { INPUTS } from './inputs.ts';
import { providerFault } from './provider-refusal.ts';
import { type OpenedSession, openSession } from './session.ts';
import type { SignInVia } from './sign-in.ts';

const PURPOSE = 'oidc sign-in';

/** Most control planes never ask such a provider: what speaks with one takes memory from then on. */
const openid = () => import('../sign-in/oidc.ts');

interface Pending extends OidcPending {
  providerId: number;
  /** In milliseconds since 1970. */
  until: number;
}

export interface OidcBegun extends Payload {
  /** Where to send the browser; null: it was refused. */
  url: string | null;
  /** For a cookie of the browser: what comes back is believed from there alone. */
  pending: string | null;
}

/** Begins a sign-in on a provider's own page. @throws VirtgraphError UNAVAILABLE */
export async function beginOidcSignIn(context: OpsContext, raw: unknown, via: SignInVia): Promise<OidcBegun> {
  const parsed = INPUTS.beginOidcSignIn.safeParse(raw);
  const uid = parsed.success ? decodeIdOf('identity_provider', parsed.data.provider) : null;
  if (!uid) return refused({ code: 'INVALID_INPUT', message: 'Not an id like `idp_…`.', path: ['provider'] });
  try {
    context.signInLimits.beginAt(via.address);
    const provider = await enabledProvider(context, { uid });
    if (!provider) throw notFound('identity provider', ['provider']);
    const { url, pending } = await asked(context, provider, async (client) => (await openid()).beginOidc(client));
    const kept: Pending = { ...pending, providerId: provider.id, until: Date.now() + PENDING_SIGN_IN_MS };
    return {
      ...NOTHING,
      url,
      pending: context.sealer.seal(JSON.stringify(kept), PURPOSE).toString('base64url'),
      errors: [],
    };
  } catch (error) {
    if (error instanceof VirtgraphError) return refused(error.data);
    throw error;
  }
}

const refused = (error: UserErrorData): OidcBegun => ({ ...NOTHING, url: null, pending: null, errors: [error] });

const NOTHING = { id: null, jobId: null };

/**
 * Ends a sign-in that this browser began. What is refused is on the audit trail; too many tries are not, nor an outage.
 *
 * @param query of the URL that the provider sent it back to
 * @param kept what the browser has kept since
 * @throws VirtgraphError UNAUTHENTICATED, FORBIDDEN, UNAVAILABLE
 */
export async function finishOidcSignIn(
  context: OpsContext,
  query: string,
  kept: string | null,
  via: SignInVia,
): Promise<OpenedSession> {
  try {
    return await finish(context, query, kept, via);
  } catch (error) {
    throw isOutage(error) ? unavailable(error) : error;
  }
}

async function finish(context: OpsContext, query: string, kept: string | null, via: SignInVia): Promise<OpenedSession> {
  context.signInLimits.beginAt(via.address);
  const { pending, provider } = await recorded(context, auditOf(null, via), () => begun(context, query, kept));
  const about = auditOf(provider, via);
  const identity = await recorded(context, about, () =>
    asked(context, provider, async (client) => (await openid()).finishOidc(client, pending, query)).catch(
      (error: unknown) => {
        const { cause } = error as Error;
        // It said no, or what nobody can believe: that is about this one answer.
        throw cause instanceof ProviderRefused ? beginAgain(`${provider.name} has not let you in.`) : error;
      },
    ),
  );
  const { userId } = await admitExternal(context, provider, identity, via);
  const { secondFactor } = identity;
  const opened = await openSession(context, { userId, how: 'OIDC', secondFactor, via, userAgent: via.userAgent });
  if (opened.kind === 'opened') return opened;
  return recorded(context, { ...about, userId, subject: { kind: 'user', id: userId } }, async () => {
    throw new VirtgraphError({
      code: 'FORBIDDEN',
      message: 'You, what you signed in by, your account or your domain is switched off.',
    });
  });
}

/** Leaves a record of what the work refuses. A provider that is away refuses nobody. */
async function recorded<T>(
  { writer }: OpsContext,
  about: Omit<NewAudit, 'outcome' | 'code'>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof VirtgraphError && error.code !== 'UNAVAILABLE')
      await writer.submit({ ...emptyTransition(), audits: [{ ...about, outcome: 'REFUSED', code: error.code }] });
    throw error;
  }
}

/** What this browser has begun, which is answered for the first time. @throws VirtgraphError UNAUTHENTICATED */
async function begun(
  context: OpsContext,
  query: string,
  kept: string | null,
): Promise<{ pending: Pending; provider: IdentityProvider }> {
  const pending = pendingOf(context, kept);
  if (!pending || pending.until < Date.now()) throw beginAgain('This browser has begun no sign-in, or too long ago.');
  const { searchParams } = new URL(query, 'http://x');
  if (!same(searchParams.get('state') ?? '', pending.state)) throw beginAgain('This answers another sign-in.');
  await mustBeUnused(context, pending.state);
  const provider = await enabledProvider(context, { id: pending.providerId });
  if (!provider) throw beginAgain('What you signed in by is switched off.');
  return { pending, provider };
}

const beginAgain = (what: string): VirtgraphError =>
  new VirtgraphError({ code: 'UNAUTHENTICATED', message: `${what} Begin again.` });

function pendingOf({ sealer }: OpsContext, kept: string | null): Pending | null {
  if (kept === null) return null;
  try {
    return JSON.parse(sealer.open(Buffer.from(kept, 'base64url'), PURPOSE).toString()) as Pending;
  } catch (error) {
    // Whoever shows something else than what we gave is answered like one who shows nothing.
    if (error instanceof SealBroken) return null;
    throw error;
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
const same = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b));

/** Before the code is asked for: whatever comes of it, the same answer is not taken again. */
async function mustBeUnused({ writer, ids }: OpsContext, state: string): Promise<void> {
  const write = insert('used_sign_in', { id: await ids.take(), state_hash: digest(state) });
  const { kind } = await writer.submit({ ...emptyTransition(), writes: [write] });
  if (kind !== 'written') throw beginAgain('This answer was used already.');
}

const enabledProvider = (
  { db }: OpsContext,
  by: { id: number } | { uid: Buffer },
): Promise<IdentityProvider | undefined> => {
  const query = db
    .selectFrom('identity_provider')
    .selectAll()
    .where('type', '=', 'OIDC')
    .where('wanted_state', '=', 'ENABLED')
    .where('deleted_at', 'is', null);
  return ('id' in by ? query.where('id', '=', by.id) : query.where('uid', '=', by.uid)).executeTakeFirst();
};

async function asked<T>(
  context: OpsContext,
  provider: IdentityProvider,
  ask: (client: OidcClient) => Promise<T>,
): Promise<T> {
  const { egress, site } = context;
  const client: OidcClient = {
    settings: JSON.parse(provider.settings) as OidcSettings,
    secret: secretOf(context, provider),
    redirectUri: new URL(SIGN_IN_CALLBACK, site.publicUrl).href,
    egress,
  };
  return ask(client).catch((error: unknown) => {
    throw providerFault(context, error, provider);
  });
}
