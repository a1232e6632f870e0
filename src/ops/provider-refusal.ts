import { VirtgraphError } from '../domain/errors.ts';
import { ProviderAway, ProviderRefused } from '../sign-in/refused.ts';
import type { OpsContext } from './context.ts';

/**
 * What somebody who wants to sign in is told of a provider that can not be asked. Its own words are for the log: they may
 * name what is inside.
 */
export function providerFault({ log }: OpsContext, error: unknown, provider: { id: number; name: string }): unknown {
  if (!(error instanceof ProviderAway) && !(error instanceof ProviderRefused)) return error;
  log.warn({ err: error, identityProviderId: provider.id }, 'an identity provider could not be asked');
  const message =
    error instanceof ProviderAway
      ? `${provider.name} does not answer. Try again in a moment.`
      : `${provider.name} can not be used as it is set up. Tell whoever administers your domain.`;
  return new VirtgraphError({ code: 'UNAVAILABLE', message }, { cause: error });
}
