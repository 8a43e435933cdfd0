import { readFileSync } from 'node:fs';

/**
 * Name of a local user, or undefined where /etc/passwd has none (passwd(5)). Users of a directory service show as numbers:
 * asking for them could block the agent on a network.
 */
export function findUserName(uid: number): string | undefined {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name, , id] = line.split(':');
    if (name && id === String(uid)) return name;
  }
  return undefined;
}
