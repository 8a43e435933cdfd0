import { existsSync, lstatSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { findGroupId, findUserId } from '../../os/users.ts';
import type { UserIds } from '../as-user.ts';
import { checkLink, holds, isLink, makeLink, readShipped, type TextFile, writePublic } from './files.ts';
import { runCommand } from './run.ts';
import { plainStep, type Step } from './step.ts';
import { hasClient, treeFolder } from './tree.ts';

/** The user that the system's agent runs as, and the group of those who may connect. */
export const serviceUser = 'kms-agent';
const callersGroup = 'kms-users';

/** That user by numbers; undefined before an installation has made it. */
export function findServiceUser(): UserIds | undefined {
  const [uid, gid] = [findUserId(serviceUser), findGroupId(serviceUser)];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

/** What installs and upgrades a host: the program of the packages, where the guide puts them (daemon/README.md). The installed one upgrades nothing. */
export const installCommand = '/opt/kms-agent/bin/kms-agent install --system';

/** Where the system's agent keeps things. */
export const systemPlaces = { dataDir: '/var/lib/kms-agent', auditDir: '/var/log/kms-agent', configFile: '/etc/kms-agent/config.json' } as const;

/** What tells systemd of users and folders. */
export const hostFiles = (): { readonly sysusers: TextFile; readonly tmpfiles: TextFile } => ({
  sysusers: ['/etc/sysusers.d/kms-agent.conf', readShipped('kms-agent.sysusers.conf')],
  tmpfiles: ['/etc/tmpfiles.d/kms-agent.conf', readShipped('kms-agent.tmpfiles.conf')],
});

/** A link of the host, and where in the program it leads. */
export type HostLink = readonly [link: string, target: string];

/** What a package shows to people: its command, its manual page, and what completes it in each shell. */
function linksOf(name: string, part: 'daemon' | 'client'): HostLink[] {
  const inPackage = (path: string): string => join(treeFolder, 'node_modules/@kms-agent', part, path);
  return [
    [join('/usr/bin', name), join(treeFolder, 'bin', name)],
    [`/usr/share/man/man1/${name}.1`, inPackage(`man/${name}.1`)],
    [`/usr/share/bash-completion/completions/${name}`, inPackage(`completions/${name}.bash`)],
    // The folder of Debian, and that of others.
    [`/usr/share/zsh/vendor-completions/_${name}`, inPackage(`completions/${name}.zsh`)],
    [`/usr/share/zsh/site-functions/_${name}`, inPackage(`completions/${name}.zsh`)],
    [`/usr/share/fish/vendor_completions.d/${name}.fish`, inPackage(`completions/${name}.fish`)],
  ];
}

const agentLinks = linksOf('kms-agent', 'daemon');
const clientLinks = linksOf('kms', 'client');

/** All that an installation may have made. */
export const hostLinks: readonly HostLink[] = [...agentLinks, ...clientLinks];

/** What there is a use for on this host: a manual and shells have a folder where they look. */
const usefulLinks = (): HostLink[] => [...agentLinks, ...(hasClient() ? clientLinks : [])].filter(([link]) => existsSync(dirname(link)));

/** @throws AgentError `ERR_ALREADY_EXISTS` for a file in the place of a link. */
export function checkLinks(): void {
  for (const [link, target] of usefulLinks()) checkLink(link, target);
}

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
  const settings: TextFile = [systemPlaces.configFile, '{}\n'];
  return [
    plainStep(
      'commands',
      'link /usr/bin/kms-agent, /usr/bin/kms, their manual pages and completions to the program',
      () => usefulLinks().every(([link, target]) => isLink(link, target)),
      () => {
        for (const [link, target] of usefulLinks()) if (!isLink(link, target)) makeLink(link, target);
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
      () => lstatSync(settings[0], { throwIfNoEntry: false }) !== undefined, // a link into nothing is somebody's settings too
      () => writePublic(settings),
    ),
  ];
}
