import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { isLink, removeFiles } from './files.ts';
import { checkLinks, hostFiles, hostLinks, hostSteps, installCommand, systemPlaces } from './host.ts';
import { daemonFolder } from './packages.ts';
import { checkSystemSettings, checkUserSettings } from './settings.ts';
import { plainStep, remember, type Step } from './step.ts';
import { treeFolder, treeStep } from './tree.ts';
import { checkTrusted } from './trust.ts';
import { requireVersion, systemManager, unitRemovalSteps, unitSteps, userManager } from './units.ts';
import { firstUnlockStep, needsPerson, type VaultStepOptions, vaultSteps } from './vault-steps.ts';

/** @throws AgentError `ERR_ACCESS_DENIED` for anybody but root. */
function requireRoot(): void {
  if (process.geteuid?.() !== 0) throw new AgentError('ERR_ACCESS_DENIED', { hint: 'This sets up the whole host; run it as root.' });
}

/** What somebody must know who meant to upgrade. */
const installedItself = `Nothing was upgraded: this is the installed program itself. To upgrade, install the new packages and run theirs: ${installCommand}`;

const personNeeded =
  'Nothing opens this vault without a person: after each start of the agent somebody must run kms unlock, and until then calls that need a key are answered ERR_AGENT_LOCKED. So that the host opens it: kms-agent keyslot add credential --system, with the agent stopped (systemctl stop kms-agent.socket kms-agent.service).';

/** Whether this program is the one that an installation put on the host: it can bring nothing newer. */
const isInstalledProgram = (): boolean => daemonFolder.startsWith(`${treeFolder}/`);

/** What sets up the system's agent. @throws AgentError `ERR_ACCESS_DENIED`; as requireVersion. */
export function systemInstallation(options: VaultStepOptions): Step[] {
  requireRoot();
  const manager = systemManager();
  requireVersion(manager);
  process.umask(0o022); // what systemd's own tools make must be readable; what must not is given its mode by name
  const check = async (): Promise<void> => {
    checkLinks();
    await checkSystemSettings();
  };
  const program = remember(treeStep(check));
  return [program.step, ...hostSteps(), ...vaultSteps(options), ...unitSteps(manager, program.wasNeeded), firstUnlockStep(manager)];
}

/** What somebody must know who set up the system's agent, or would. @param options - as for systemInstallation. */
export function notesOnSystem(options: VaultStepOptions): string[] {
  return [...(isInstalledProgram() ? [installedItself] : []), ...(needsPerson(options) ? [personNeeded] : [])];
}

/** What takes the system's agent away. The vault, the audit record, the settings, the credential and the accounts stay. @throws AgentError `ERR_ACCESS_DENIED`. */
export function systemRemoval(): Step[] {
  requireRoot();
  const { sysusers, tmpfiles } = hostFiles();
  const links = (): string[] => hostLinks.filter(([link, target]) => isLink(link, target)).map(([link]) => link);
  const files = [sysusers[0], tmpfiles[0]];
  return [
    ...unitRemovalSteps(systemManager()),
    plainStep(
      'files',
      `remove ${[...files, ...hostLinks.map(([link]) => link)].join(', ')}`,
      () => links().length === 0 && !files.some((path) => existsSync(path)),
      () => removeFiles([...files, ...links()]),
    ),
    plainStep(
      'program',
      `remove ${treeFolder}`,
      () => !existsSync(treeFolder),
      () => rmSync(treeFolder, { recursive: true }),
    ),
  ];
}

/** What a removal leaves, where it is there: without it nobody can decrypt anything any more. */
export function keptOfSystem(): string[] {
  return [systemPlaces.dataDir, systemPlaces.auditDir, systemPlaces.configFile, join(credentialStore, rootCredential)].filter((path) => existsSync(path));
}

/** What sets up an agent of the user's own. @throws AgentError `ERR_STATE_CONFLICT` for a Node or program that others can write, and for settings that no agent starts with; as requireVersion. */
export async function userInstallation(configHome: string, script: string): Promise<Step[]> {
  const manager = userManager(configHome, [process.execPath, script]);
  requireVersion(manager);
  for (const path of [process.execPath, script]) checkTrusted(path);
  await checkUserSettings(join(configHome, 'kms-agent', 'config.json'));
  return unitSteps(manager);
}

export function userRemoval(configHome: string): Step[] {
  return unitRemovalSteps(userManager(configHome, [process.execPath, '']));
}
