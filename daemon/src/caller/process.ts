import { peerCredentials, peerGroups } from '../os/libc.ts';
import type { Caller } from './identity.ts';

/** Reads who is at the other end of a connected Unix socket. @throws Error when the kernel does not say. */
export function readCaller(fd: number): Caller {
  return { ...peerCredentials(fd), groups: peerGroups(fd), service: () => undefined };
}
