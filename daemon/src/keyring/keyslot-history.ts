import { isAgentError } from '@kms-agent/protocol';
import type { Vault } from '../vault/vault.ts';
import type { Keyring } from './keyring.ts';
import type { Witness } from './witness.ts';

/** Who hears of keyslots that came and went while no agent had the vault open. */
export interface KeyslotNews {
  readonly witness: Witness;
  readonly onWarning: (warning: string) => void;
}

const named = (vault: Vault): string[] => vault.listKeyslots().map(({ type, keyslotId }) => `${type} ${keyslotId}`);

/**
 * Notes in the vault which keyslots there are.
 * @returns the names of those that are new since they were noted last, by `kms-agent keyslot add`, by `rekey`, or by somebody who put another file in place; and of those that are gone.
 */
export function noteKeyslots(keyring: Keyring): { added: readonly string[]; removed: readonly string[] } {
  const [known, now] = [keyring.facts.keyslots, named(keyring.vault)];
  const changes = { added: now.filter((slot) => known && !known.includes(slot)), removed: known?.filter((slot) => !now.includes(slot)) ?? [] };
  if (!known || changes.added.length + changes.removed.length > 0) writeIfPossible(() => keyring.commit({ facts: { ...keyring.facts, keyslots: now } }));
  return changes;
}

/** Notes which slot opened the vault now, and tells of slots that changed beside an agent: that left no record of its own. */
export function noteOpening(keyring: Keyring, keyslotId: string, { witness, onWarning }: KeyslotNews): void {
  writeIfPossible(() => keyring.vault.noteUnlock(keyslotId));
  const changes = Object.entries(noteKeyslots(keyring)).flatMap(([change, slots]) => (slots.length > 0 ? [[change, slots.join(', ')]] : []));
  if (changes.length === 0) return;
  witness.note({ operation: 'keyslots', outcome: 'ok', detail: Object.fromEntries(changes) });
  onWarning(`keyslots were changed while no agent had the vault open: ${changes.map((change) => change.join(' ')).join('; ')}`);
}

/** A vault that cannot be written opens all the same: what it holds can be used, listKeyslots shows the time before, and the next unlock notes the rest. */
function writeIfPossible(write: () => void): void {
  try {
    write();
  } catch (error) {
    if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
  }
}
