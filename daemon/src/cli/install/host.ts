import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { findGroupId, findUserId } from '../../os/users.ts';
import { holds, isLink, makeLink, readShipped, type TextFile, writePublic } from './files.ts';
import { runCommand } from './run.ts';
import { plainStep, type Step } from './step.ts';
import { hasClient, treeFolder } from './tree.ts';

/** The user that the system's agent runs as, and the group of those who may connect. */
export const serviceUser = 'kms-agent';
const callersGroup = 'kms-users';

/** Where the system's agent keeps things. */
export const systemPlaces = { dataDir: '/var/lib/kms-agent', auditDir: '/var/log/kms-agent', configFile: '/etc/kms-agent/config.json' } as const;

/** What tells systemd of users and folders. */
export const hostFiles = (): { readonly sysusers: TextFile; readonly tmpfiles: TextFile } => ({
  sysusers: ['/etc/sysusers.d/kms-agent.conf', readShipped('kms-agent.sysusers.conf')],
  tmpfiles: ['/etc/tmpfiles.d/kms-agent.conf', readShipped('kms-agent.tmpfiles.conf')],
});

/** Commands that people call, and where they lead. */
export const commandLinks: readonly (readonly [link: string, target: string])[] = ['kms-agent', 'kms'].map((name) => [
  join('/usr/bin', name),
  join(treeFolder, 'bin', name),
]);

/**
 * Makes sure that what makes the system's vault is its own user: whoever else made it would leave files that the agent cannot use.
 * @returns the folder of the vault.
 * @throws AgentError `ERR_ACCESS_DENIED`.
 */
export function requireServiceUser(): string {
  if (process.geteuid?.() === findUserId(serviceUser)) return systemPlaces.dataDir;
  const hint = `The system's vault belongs to the user ${serviceUser}: runuser -u ${serviceUser} -- kms-agent init --system (kms-agent install --system does it).`;
  throw new AgentError('ERR_ACCESS_DENIED', { hint });
}

const isOwned = (folder: string): boolean => existsSync(folder) && statSync(folder).uid === findUserId(serviceUser);

/** Accounts, folders, commands and settings of the host. */
export function hostSteps(): Step[] {
  const { sysusers, tmpfiles } = hostFiles();
  const links = (): typeof commandLinks => commandLinks.filter(([link]) => !link.endsWith('/kms') || hasClient());
  const settings: TextFile = [systemPlaces.configFile, '{}\n'];
  return [
    plainStep(
      'commands',
      `link ${commandLinks.map(([link]) => link).join(' and ')} to the program`,
      () => links().every(([link, target]) => isLink(link, target)),
      () => {
        for (const [link, target] of links()) if (!isLink(link, target)) makeLink(link, target);
      },
    ),
    plainStep(
      'accounts',
      `make the user ${serviceUser}, and the group ${callersGroup} of those who may connect (${sysusers[0]})`,
      () => holds(sysusers) && findUserId(serviceUser) !== undefined && findGroupId(callersGroup) !== undefined,
      () => {
        runCommand('mkdir', '-p', '-m', '755', '/etc/sysusers.d');
        writePublic(sysusers);
        runCommand('systemd-sysusers', sysusers[0]);
      },
    ),
    plainStep(
      'folders',
      `make ${systemPlaces.dataDir}, ${systemPlaces.auditDir} and /etc/kms-agent (${tmpfiles[0]})`,
      () => holds(tmpfiles) && isOwned(systemPlaces.dataDir) && isOwned(systemPlaces.auditDir) && existsSync('/etc/kms-agent'),
      () => {
        runCommand('mkdir', '-p', '-m', '755', '/etc/tmpfiles.d');
        writePublic(tmpfiles);
        runCommand('systemd-tmpfiles', '--create', tmpfiles[0]);
      },
    ),
    plainStep(
      'settings',
      `write ${settings[0]}, without a setting yet`,
      () => existsSync(settings[0]),
      () => writePublic(settings),
    ),
  ];
}
