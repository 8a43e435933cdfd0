import type { KeyPolicy } from '@kms-agent/protocol';
import type { Key } from '../keyring/key.ts';

/** One object for each text, so that it is compiled once. */
const known = new Map<string, KeyPolicy>();

function remember(name: string, make: () => KeyPolicy): KeyPolicy {
  const policy = known.get(name) ?? make();
  known.set(name, policy);
  return policy;
}

/** The policy of a key that nobody gave one: a service's belongs to its unit, the default key to administrators, every other to its creator. */
export function defaultPolicyOf({ defaultKind, service, creator }: Key): KeyPolicy {
  if (defaultKind === 'CMK') return remember('', () => ({ statements: [] }));
  const [owner, actions] = service === undefined ? [creator, ['use', 'view', 'manage']] : [`unit:${service}`, ['use']];
  return remember(owner, () => ({ statements: [{ effect: 'Allow', principals: [owner], actions }] }));
}
