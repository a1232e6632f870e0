/**
 * A provider is wrong, or has been told wrong things: what it said is for the log and for who arranges it, and is not
 * shown to who wants to sign in.
 */
export class ProviderRefused extends Error {}

/** A provider can not be asked at the moment; that says nothing about who wants to sign in. */
export class ProviderAway extends Error {}
