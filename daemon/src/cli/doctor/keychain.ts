import { keychainAccount } from '../../keyring/keychain-keyslot.ts';
import { Keychain } from '../../os/keychain.ts';
import { hasVault } from '../../vault/folder.ts';
import { peekKeyslots } from '../../vault/peek.ts';
import { wrong } from './finding.ts';

/** Ids of the keyslots of a vault that the OS keychain opens. */
function keychainSlots(dataDir: string): string[] {
  return hasVault(dataDir) ? peekKeyslots(dataDir).flatMap(({ type, keyslotId }) => (type === 'keychain' ? [keyslotId] : [])) : [];
}

/** Whether the keychain of this session has something for each of its keyslots; whether that opens the vault only an agent can say. */
export async function lookAtKeychain(dataDir: string, timeoutMs: number): Promise<string> {
  const keyslotIds = keychainSlots(dataDir);
  if (keyslotIds.length === 0) return 'no keyslot of this vault needs it';
  const keychain = new Keychain(timeoutMs);
  for (const keyslotId of keyslotIds) {
    const secret = await keychain.read(keychainAccount(keyslotId));
    if (!secret)
      throw wrong(
        `it is locked, or has nothing for the keyslot ${keyslotId}`,
        'unlock it and run kms unlock --no-person; if its item is gone, kms keyslot remove and kms keyslot add keychain',
      );
    secret.fill(0);
  }
  return `has an item for ${keyslotIds.length === 1 ? 'the keyslot' : 'each of the keyslots'} ${keyslotIds.join(', ')}`;
}
