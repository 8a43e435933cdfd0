import { AgentError } from '@kms-agent/protocol';
import { readCredential, rootCredential } from '../os/credentials.ts';
import { parseCredentialSecret } from '../vault/keyslots/credential.ts';
import type { Opening, Vault } from '../vault/vault.ts';

const failed = (what: string, cause?: unknown): AgentError =>
  new AgentError('ERR_UNLOCK_FAILED', { hint: `the credential ${rootCredential} ${what}` }, { cause });

/** What systemd gave to this service. @throws AgentError `ERR_UNLOCK_FAILED`. */
function readSecret(): Buffer {
  let bytes: Buffer | undefined;
  try {
    bytes = readCredential(rootCredential);
  } catch (cause) {
    throw failed('cannot be read', cause);
  }
  if (!bytes) throw failed('is missing');
  const secret = parseCredentialSecret(bytes);
  bytes.fill(0);
  if (!secret) throw failed('does not hold the secret of a keyslot');
  return secret;
}

/**
 * Opens a vault with the credential of this service. Whatever is wrong with it, nothing is made in its place.
 * @throws AgentError `ERR_UNLOCK_FAILED` whose hint says whether it is missing, unreadable or of another vault.
 */
export function openWithCredential(vault: Vault, keyslotId?: string): Opening {
  const secret = readSecret();
  try {
    const opening = vault.openSecretKeyslot('credential', secret, keyslotId);
    if (!opening) throw failed('opens no keyslot of this vault');
    return opening;
  } finally {
    secret.fill(0);
  }
}
