import type { Resolve } from '../../src/egress/egress.ts';

/** As the system says of a name that is none, without asking anyone. */
export const nobodyKnows: Resolve = async (name) => {
  throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), {
    code: 'ENOTFOUND',
    errno: -3008,
    syscall: 'getaddrinfo',
  });
};
