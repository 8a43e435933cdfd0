import type { Unit } from './identity.ts';

/** Where the users' managers are, in which users name units as they like. */
const userSlice = 'user.slice';
const usersManager = /^user@\d+\.service$/;

/** systemd writes `_` before a name that the kernel or systemd itself could take for something else. */
const unescapeName = (component: string): string => (component.startsWith('_') ? component.slice(1) : component);

const isSlice = (name: string): boolean => name.endsWith('.slice');
const isUnit = (name: string): boolean => /^[A-Za-z0-9:_.\\@-]+\.(service|scope|socket|mount|swap)$/.test(name);

/**
 * Reads the unit out of the text of /proc/PID/cgroup (cgroups(7)): the first component of the version 2 path that is no slice;
 * what a service with delegation makes below itself does not count. Inside /user.slice/ it is a unit of the user's own manager, or none.
 */
export function parseUnit(text: string): Unit | undefined {
  const path = text.split('\n').find((line) => line.startsWith('0::'));
  if (!path?.startsWith('0::/')) return undefined;
  const names = path.slice('0::/'.length).split('/').map(unescapeName);
  const first = names.findIndex((name) => !isSlice(name));
  const name = names[first];
  if (name === undefined || !isUnit(name)) return undefined;
  if (names[0] !== userSlice) return { scope: 'system', name };
  if (!usersManager.test(name)) return undefined;
  const own = names.slice(first + 1).find((component) => !isSlice(component));
  return own !== undefined && isUnit(own) ? { scope: 'user', name: own } : undefined;
}
