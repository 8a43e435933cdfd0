import { isAgentError } from '@kms-agent/protocol';
import type { Vault } from '../vault/vault.ts';
import type { Keyring } from './keyring.ts';

/** Keyslots that came and went while no agent had the vault open: by `kms-agent keyslot add`, by `rekey`, or by somebody who put another file in place. */
export interface KeyslotChanges {
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

const named = (vault: Vault): string[] => vault.listKeyslots().map(({ type, keyslotId }) => `${type} ${keyslotId}`);

/** Notes in the vault which keyslots there are. A vault that cannot be written is noted at the next unlock. @returns what is new since they were noted last. */
export function noteKeyslots(keyring: Keyring): KeyslotChanges {
  const [known, now] = [keyring.facts.keyslots, named(keyring.vault)];
  const changes = { added: now.filter((slot) => known && !known.includes(slot)), removed: known?.filter((slot) => !now.includes(slot)) ?? [] };
  if (known && changes.added.length + changes.removed.length === 0) return changes;
  try {
    keyring.commit({ facts: { ...keyring.facts, keyslots: now } });
  } catch (error) {
    if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
  }
  return changes;
}
