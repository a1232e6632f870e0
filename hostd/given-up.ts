/** Asking again would be answered alike, so the link ends; a person has to do something. */
export class GivenUp extends Error {
  override readonly name: string = 'GivenUp';
}

/** A join token that the control plane does not know, or no more. */
export class JoinTokenRefused extends GivenUp {
  override readonly name = 'JoinTokenRefused';
}

/** Whoever answers is not who made the join token: nothing was told to it. */
export class WrongControlPlane extends GivenUp {
  override readonly name = 'WrongControlPlane';
}

/** The control plane does not accept this host's certificate, or no more. */
export class CertificateRefused extends GivenUp {
  override readonly name = 'CertificateRefused';
}
