/** What an operator wants of a zone, pod, cluster, storage, offering or template. */
export type WantedState = 'ENABLED' | 'DISABLED';

/** What an operator wants of a host. Only an enabled one takes new VMs. */
export type HostWantedState = 'ENABLED' | 'DISABLED';

/**
 * What is known of the link to a host. UNREACHABLE: nothing is heard of it, which says nothing about its VMs.
 * DOWN: proven dead by fencing.
 */
export const HOST_LINK_STATES = ['CONNECTING', 'UP', 'UNREACHABLE', 'DOWN'] as const;
export type HostLinkState = (typeof HOST_LINK_STATES)[number];

/**
 * Certificates of a host are numbered, and none below its floor is accepted. So much the floor is raised to be past the one
 * in use, and past the one that may have been issued to follow it.
 */
export const PAST_ALL_ISSUED = 2;
