import { statSync } from 'node:fs';
import { AgentError } from '@kms-agent/protocol';
import { readSecret } from '@kms-agent/protocol/terminal';
import { KeychainKeyslots } from '../keyring/keychain-keyslot.ts';
import { mentionedBy } from '../keyring/records.ts';
import { type CredentialKey, encryptRootCredential } from '../os/credential-store.ts';
import { hasVault } from '../vault/folder.ts';
import { makeCredentialSecret, parseCredentialSecret } from '../vault/keyslots/credential.ts';
import { Vault } from '../vault/vault.ts';
import { type AsUserOptions, runAsUser } from './as-user.ts';
import { requireKeychain } from './offer-keychain.ts';
import type { VaultCommandOptions } from './vault-commands.ts';

/** What `keyslot add credential` takes. */
export interface AddCredentialOptions extends VaultCommandOptions {
  /** Descriptor with a secret that somebody else keeps; then only the vault is changed. */
  readonly secretFd?: number;
  readonly withKey: CredentialKey;
  readonly credstore: string;
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Opens a vault whose agent is stopped, and works on it. @throws as Vault.open, openKeyslot and unlockWith. */
async function withOpenVault<T>(dataDir: string, passphrase: string, work: (vault: Vault) => Promise<T>): Promise<T> {
  const vault = Vault.open({ dataDir, clock: Date.now });
  try {
    const opening = await vault.openKeyslot({ passphrase });
    await vault.unlockWith(opening, mentionedBy, ({ plaintext }) => plaintext.fill(0));
    opening.wipe();
    return await work(vault);
  } finally {
    vault.close();
  }
}

/** Adds a slot for a secret. @returns its id. @throws as withOpenVault. */
async function addSlot(dataDir: string, passphrase: string, text: string): Promise<string> {
  const secret = parseCredentialSecret(Buffer.from(text));
  if (!secret) throw new AgentError('ERR_INVALID_PARAMS', { reason: 'the secret of a credential keyslot is 32 bytes in base64' });
  const slot = { type: 'credential', secret, proof: { passphrase } } as const;
  const { keyslot } = await withOpenVault(dataDir, passphrase, (vault) => vault.addKeyslot(slot)).finally(() => secret.fill(0));
  return keyslot.keyslotId;
}

/** Adds a slot that the OS keychain of this session opens. @throws as withOpenVault; AgentError `ERR_STORE_UNAVAILABLE` without a keychain. */
export async function addKeychainKeyslot({ dataDir, passphraseFd, json }: VaultCommandOptions): Promise<void> {
  if (!hasVault(dataDir)) throw new AgentError('ERR_NOT_INITIALIZED');
  const keychain = await requireKeychain();
  const passphrase = await readSecret('Passphrase of an existing keyslot: ', passphraseFd);
  const { keyslot } = await withOpenVault(dataDir, passphrase, (vault) => new KeychainKeyslots(keychain).add(vault, { proof: { passphrase } }));
  say(json ? JSON.stringify({ keyslotId: keyslot.keyslotId }) : `Keyslot ${keyslot.keyslotId} opens with the OS keychain whenever you are logged in.`);
}

/**
 * Adds a slot that a systemd credential opens. As root it makes the secret, encrypts it for this host, has the vault's owner add the slot, and only then
 * names the credential: at no point does a credential stand in the store that opens nothing, and one that is there is never written over.
 */
export async function addCredentialKeyslot(options: AddCredentialOptions): Promise<void> {
  const { dataDir, passphraseFd, secretFd, json, withKey, credstore } = options;
  // First, because the vault of another user looks as if it were not there.
  if (secretFd === undefined && process.geteuid?.() !== 0)
    throw new AgentError('ERR_ACCESS_DENIED', {
      hint: `Only root can write to ${credstore}: run it as root, or keep the secret yourself and give it with --secret-fd.`,
    });
  if (!hasVault(dataDir)) throw new AgentError('ERR_NOT_INITIALIZED');
  const passphrase = await readSecret('Passphrase of an existing keyslot: ', passphraseFd);
  if (secretFd !== undefined) {
    const keyslotId = await addSlot(dataDir, passphrase, await readSecret('', secretFd));
    return say(json ? JSON.stringify({ keyslotId }) : `Keyslot ${keyslotId} opens with that secret.`);
  }
  const { keyslotId, file } = await addHostCredential({ dataDir, passphrase, withKey, credstore });
  say(json ? JSON.stringify({ keyslotId, file }) : `Keyslot ${keyslotId} opens with the credential ${file}, on this host only.`);
}

/** As root: makes the secret, its credential and, as the vault's owner, its slot. @throws as encryptRootCredential; Error with what the owner's command complained of. */
export async function addHostCredential({
  dataDir,
  passphrase,
  withKey,
  credstore,
  ...command
}: Pick<AsUserOptions, 'node' | 'program'> & { dataDir: string; passphrase: string; withKey: CredentialKey; credstore: string }): Promise<{
  keyslotId: string;
  file: string;
}> {
  const secret = makeCredentialSecret();
  const credential = encryptRootCredential(secret, withKey, credstore);
  try {
    const { uid, gid } = statSync(dataDir);
    const args = ['keyslot', 'add', 'credential', '--data-dir', dataDir, '--passphrase-fd', '3', '--secret-fd', '4', '--json'];
    const answer = await runAsUser({ ...command, ...(uid === 0 ? {} : { user: { uid, gid } }), args, inputs: [passphrase, secret] });
    const { keyslotId } = JSON.parse(answer) as { keyslotId: string }; // printed by the command above
    credential.keep();
    return { keyslotId, file: credential.file };
  } catch (error) {
    credential.discard();
    throw error;
  }
}
