import { readFileSync } from 'node:fs';

/** Rows of /etc/passwd or /etc/group, whose first field is a name and whose third its number (passwd(5), group(5)). */
function* rows(file: '/etc/passwd' | '/etc/group'): Generator<{ name: string; id: string }> {
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [name, , id] = line.split(':');
    if (name && id) yield { name, id };
  }
}

/**
 * Name of a local user, or undefined where /etc/passwd has none. Users of a directory service show as numbers:
 * asking for them could block the agent on a network.
 */
export function findUserName(uid: number): string | undefined {
  for (const { name, id } of rows('/etc/passwd')) if (id === String(uid)) return name;
  return undefined;
}

function findId(file: '/etc/passwd' | '/etc/group', wanted: string): number | undefined {
  for (const { name, id } of rows(file)) if (name === wanted && /^\d+$/.test(id)) return Number(id);
  return undefined;
}

/** The uid of a local user. */
export const findUserId = (name: string): number | undefined => findId('/etc/passwd', name);

/** The gid of a local group. */
export const findGroupId = (name: string): number | undefined => findId('/etc/group', name);
