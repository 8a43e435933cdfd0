import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readNewSecret, readSecret } from '@kms-agent/protocol/terminal';
import { type CredentialKey, credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { hasVault } from '../../vault/folder.ts';
import { peekKeyslots } from '../../vault/peek.ts';
import { FailedCommand, runAsUser, type UserIds } from '../as-user.ts';
import { addHostCredential } from '../keyslot-commands.ts';
import { oweRecoveryCode } from '../recovery-code.ts';
import { findServiceUser, serviceUser, systemPlaces } from './host.ts';
import { HalfDone, plainStep, type Step } from './step.ts';
import { treeNode, treeProgram } from './tree.ts';
import { serviceUnit } from './unit-names.ts';
import type { Manager } from './units.ts';

/** What the vault is made with. */
export interface VaultStepOptions {
  readonly passphraseFd?: number;
  /** Undefined for no credential: a person then unlocks after each start. */
  readonly withKey?: CredentialKey;
}

const { dataDir } = systemPlaces;
const credentialFile = join(credentialStore, rootCredential);

/** @throws Error without the user, whom an earlier step makes. */
function requireUser(): UserIds {
  const user = findServiceUser();
  if (!user) throw new Error(`There is no user ${serviceUser}.`);
  return user;
}

/** Asks once, for what the vault and its credential need. */
function passphraseReader(fd: number | undefined): (isNew: boolean) => Promise<string> {
  let known: Promise<string> | undefined;
  return (isNew) => {
    known ??= isNew ? readNewSecret('New passphrase for the vault: ', fd) : readSecret('Passphrase of the vault: ', fd);
    return known;
  };
}

/** @param answer - printed by init. */
function readCode(answer: string): { recoveryCode: string } {
  const { recoveryCode } = JSON.parse(answer) as { recoveryCode: string };
  oweRecoveryCode(dataDir);
  return { recoveryCode };
}

/** An init that failed once there was a vault has printed its recovery code. */
function failWithCode(error: Error): never {
  if (error instanceof FailedCommand && error.output !== '') throw new HalfDone(error, readCode(error.output));
  throw error;
}

/** The vault, made by its own user, and the credential that opens it at each start. */
export function vaultSteps({ passphraseFd, withKey }: VaultStepOptions): Step[] {
  const readPassphrase = passphraseReader(passphraseFd);
  const vault: Step = {
    name: 'vault',
    will: `make a vault in ${dataDir} as ${serviceUser}, with a passphrase, a recovery code and a default key`,
    isDone: () => hasVault(dataDir),
    run: async () => {
      const inputs = [await readPassphrase(true)];
      const command = { node: treeNode, program: treeProgram, user: requireUser() };
      return await runAsUser({ ...command, args: ['init', '--system', '--passphrase-fd', '3', '--json'], inputs }).then(readCode, failWithCode);
    },
  };
  if (withKey === undefined) return [vault];
  const credential = plainStep(
    'credential',
    `add a keyslot that ${credentialFile} opens, encrypted for this host`,
    () => existsSync(credentialFile),
    async () => {
      const command = { node: treeNode, program: treeProgram };
      await addHostCredential({ ...command, dataDir, passphrase: await readPassphrase(false), withKey, credstore: credentialStore });
    },
  );
  return [vault, credential];
}

/** Keyslots that a person must open. */
const ofPersons: ReadonlySet<string> = new Set(['passphrase', 'recovery']);

/** Whether the vault opens for a person only, once the steps have run: an installation that adds a credential sees to it that it does not. */
export function needsPerson({ withKey }: VaultStepOptions): boolean {
  if (withKey !== undefined && !existsSync(credentialFile)) return false;
  return !hasVault(dataDir) || peekKeyslots(dataDir).every(({ type }) => ofPersons.has(type));
}

/** Starts the agent once and shows what it says of itself: the first unlock, while somebody looks. */
export function firstUnlockStep({ systemctl, is }: Manager): Step {
  return {
    name: 'unlock',
    will: `start ${serviceUnit} and see whether it unlocks`,
    isDone: () => is('is-active', serviceUnit),
    run: () => {
      systemctl('start', serviceUnit);
      return { status: systemctl('show', '--property=StatusText', '--value', serviceUnit) };
    },
  };
}
