import { peerCredentials, peerGroups } from '../os/libc.ts';
import type { Caller } from './identity.ts';

/** Says which system unit a caller runs in, when it is a service. */
export type ServiceOf = (caller: { uid: number; pid?: number }) => string | undefined;

/** Reads who is at the other end of a connected Unix socket. @throws Error when the kernel does not say. */
export function readCaller(fd: number, serviceOf: ServiceOf): Caller {
  const credentials = peerCredentials(fd);
  return { ...credentials, groups: peerGroups(fd), service: () => serviceOf(credentials) };
}
