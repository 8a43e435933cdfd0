import { AgentError, isAgentError } from '@kms-agent/protocol';
import { readNewSecret, readSecret } from '@kms-agent/protocol/terminal';
import { Aliases } from '../keyring/aliases.ts';
import { Creation } from '../keyring/creation.ts';
import type { Key } from '../keyring/key.ts';
import { KeychainKeyslots, keychainAccount } from '../keyring/keychain-keyslot.ts';
import { Keyring } from '../keyring/keyring.ts';
import { completeFacts, keyringMoving } from '../keyring/moving.ts';
import { mentionedBy } from '../keyring/records.ts';
import { TokenWork } from '../keyring/token-work.ts';
import { Keychain } from '../os/keychain.ts';
import { SoftwareProvider } from '../providers/software/provider.ts';
import { backupVault, rekeyVault, restoreVault, salvageVault } from '../vault/copies.ts';
import { Vault } from '../vault/vault.ts';
import { chooseKeychain } from './offer-keychain.ts';
import { oweRecoveryCode } from './recovery-code.ts';

/** What every command on a vault takes. */
export interface VaultCommandOptions {
  readonly dataDir: string;
  readonly passphraseFd?: number;
  readonly json?: boolean;
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function showRecoveryCode(code: string): void {
  say('Recovery code, shown this once. Print it and keep it away from this machine:');
  say(`\n    ${code}\n`);
}

/** What `init` takes. */
export interface InitOptions extends VaultCommandOptions {
  readonly defaultKey: boolean;
  /** Whether the OS keychain shall open the vault; asked for on a terminal where nobody says. */
  readonly keychain?: boolean;
}

/** Makes a vault with a passphrase slot, a recovery slot, and the default key; on a workstation also with a slot that the OS keychain opens. */
export async function init({ dataDir, passphraseFd, json, defaultKey, keychain }: InitOptions): Promise<void> {
  const isAttended = passphraseFd === undefined && json !== true;
  const offered = await chooseKeychain(keychain, isAttended); // before anything is made
  const passphrase = await readNewSecret('New passphrase for the vault: ', passphraseFd);
  const slots = [{ type: 'passphrase', passphrase }, { type: 'recovery' }] as const;
  const { vault, recoveryCode = '' } = await Vault.create({ dataDir, clock: Date.now, slots });
  oweRecoveryCode(dataDir);
  if (!json) showNewVault(dataDir, recoveryCode); // before what may fail, or wait for a person at a prompt until somebody ends it
  const made: { defaultKeyId?: string; keychainKeyslotId?: string } = {};
  try {
    if (defaultKey) made.defaultKeyId = (await makeDefaultKey(vault)).keyId;
    if (offered) made.keychainKeyslotId = (await new KeychainKeyslots(offered).add(vault, { proof: { passphrase } })).keyslot.keyslotId;
  } catch (error) {
    throw unfinished(error, defaultKey && made.defaultKeyId === undefined);
  } finally {
    if (json) say(JSON.stringify({ dataDir, recoveryCode, ...made })); // before what may fail, too
    vault.close();
  }
  if (!json) showRest(made);
}

function showNewVault(dataDir: string, recoveryCode: string): void {
  say(`The vault is in ${dataDir}.`);
  showRecoveryCode(recoveryCode);
}

function showRest({ defaultKeyId, keychainKeyslotId }: { defaultKeyId?: string; keychainKeyslotId?: string }): void {
  say(defaultKeyId === undefined ? 'No default key was made.' : `Default key: ${defaultKeyId} (alias/default)`);
  say(keychainKeyslotId === undefined ? 'Next: kms-agent serve, then kms unlock.' : 'The OS keychain opens it when you are logged in. Next: kms-agent serve.');
}

/** What stopped `init` once there was a vault, and how to make what is missing: a second `init` would only say that there is one. */
function unfinished(cause: unknown, isKeyMissing: boolean): AgentError {
  const said = cause instanceof Error ? cause.message : String(cause);
  const [code, why] = isAgentError(cause) ? [cause.code, cause.details.hint ?? said] : (['ERR_STORE_UNAVAILABLE', said] as const);
  const next = isKeyMissing
    ? 'the default key and what comes after it are not: kms key create --alias alias/default once the agent is unlocked'
    : 'a keyslot for the OS keychain is not: kms-agent keyslot add keychain';
  return new AgentError(code, { hint: `${why.replace(/\.$/, '')}. The vault is made and its recovery code shown, ${next}.` }, { cause });
}

/** Makes the default key of a vault that is open and has none. */
export async function makeDefaultKey(vault: Vault): Promise<Key> {
  const keyring = new Keyring(vault, [new SoftwareProvider()], { now: Date.now, isBelievable: () => true, runningMs: () => 0, sinceBoot: () => 0 });
  const tokenWork = new TokenWork({ keyring, onWarning: () => undefined }); // there is no token yet
  const creation = new Creation(keyring, new Aliases(keyring), tokenWork, (_act, changes) => keyring.commit(changes)); // the vault has no record yet
  return await creation.createKey({ uid: process.getuid?.() ?? 0 }, { aliasName: 'alias/default', description: 'Default key' });
}

/** Makes a new root key. */
export async function rekey({ dataDir, passphraseFd, json }: VaultCommandOptions): Promise<void> {
  const passphrase = await readSecret('Passphrase of the vault: ', passphraseFd);
  const { recoveryCode, droppedKeyslots } = await rekeyVault({ dataDir, clock: Date.now }, { passphrase }, keyringMoving);
  oweRecoveryCode(dataDir);
  const stale = droppedKeyslots.filter(({ type }) => type === 'keychain');
  for (const { keyslotId } of stale) await new Keychain().remove(keychainAccount(keyslotId)).catch(() => undefined); // it opens nothing any more
  if (json) return say(JSON.stringify({ recoveryCode, droppedKeyslots }));
  for (const { type, label } of droppedKeyslots) say(`Removed: keyslot ${label} (${type}), whose secret was not given; add it again with kms keyslot add.`);
  showRecoveryCode(recoveryCode);
}

/** Writes a sealed copy, also beside a running agent. */
export async function backup({ dataDir, json }: VaultCommandOptions, file: string): Promise<void> {
  await backupVault(dataDir, file);
  say(json ? JSON.stringify({ file }) : `Sealed copy written to ${file}. It opens with the vault's keyslots of today.`);
}

/** Puts a backup in place of nothing. */
export async function restore({ dataDir, json }: VaultCommandOptions, file: string): Promise<void> {
  await restoreVault(file, dataDir);
  if (json) return say(JSON.stringify({ dataDir }));
  say(`The vault is in ${dataDir}.`);
  say('Once it is unlocked, destruction and expiry of keys wait for kms confirm-clock; cancel the deletion of what must live first.');
}

/** Saves what still opens of a damaged vault. @returns whether everything was saved. */
export async function salvage({ dataDir, passphraseFd, json }: VaultCommandOptions, newDataDir: string): Promise<void> {
  const passphrase = await readSecret('Passphrase of the damaged vault: ', passphraseFd);
  const { saved, findings, recoveryCode } = await salvageVault({ dataDir, clock: Date.now }, { passphrase }, newDataDir, {
    mentions: mentionedBy,
    complete: completeFacts,
    ...keyringMoving,
  });
  oweRecoveryCode(newDataDir);
  if (json) return say(JSON.stringify({ newDataDir, saved, findings, recoveryCode }));
  for (const finding of findings) say(`Damaged: ${finding}`);
  say(`Saved ${saved} records to ${newDataDir}; the damaged vault was not touched.`);
  showRecoveryCode(recoveryCode);
}
