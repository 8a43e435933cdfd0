import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { isLink, removeFiles } from './files.ts';
import { checkLinks, hostFiles, hostLinks, hostSteps, systemPlaces } from './host.ts';
import { daemonFolder } from './packages.ts';
import { plainStep, type Step } from './step.ts';
import { treeFolder, treeStep } from './tree.ts';
import { checkTrusted } from './trust.ts';
import { requireVersion, systemManager, unitRemovalSteps, unitSteps, userManager } from './units.ts';
import { firstUnlockStep, type VaultStepOptions, vaultSteps } from './vault-steps.ts';

/** @throws AgentError `ERR_ACCESS_DENIED` for anybody but root. */
function requireRoot(): void {
  if (process.geteuid?.() !== 0) throw new AgentError('ERR_ACCESS_DENIED', { hint: 'This sets up the whole host; run it as root.' });
}

/** Whether this program is the one that an installation put on the host: it can bring nothing newer. */
export const isInstalledProgram = (): boolean => daemonFolder.startsWith(`${treeFolder}/`);

/** What sets up the system's agent. @throws AgentError `ERR_ACCESS_DENIED`; as requireVersion. */
export function systemInstallation(options: VaultStepOptions): Step[] {
  requireRoot();
  const manager = systemManager();
  requireVersion(manager);
  process.umask(0o022); // what systemd's own tools make must be readable; what must not is given its mode by name
  const program = treeStep(checkLinks);
  return [program, ...hostSteps(), ...vaultSteps(options), ...unitSteps(manager), firstUnlockStep(manager)];
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

/** What sets up an agent of the user's own. @throws AgentError `ERR_STATE_CONFLICT` for a Node or program that others can write; as requireVersion. */
export function userInstallation(configHome: string, script: string): Step[] {
  const manager = userManager(configHome, [process.execPath, script]);
  requireVersion(manager);
  for (const path of [process.execPath, script]) checkTrusted(path);
  return unitSteps(manager);
}

export function userRemoval(configHome: string): Step[] {
  return unitRemovalSteps(userManager(configHome, [process.execPath, '']));
}
