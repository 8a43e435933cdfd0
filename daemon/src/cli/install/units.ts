import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { holds, readShipped, removeFiles, type TextFile, writePublic } from './files.ts';
import { dateAnew, isOutdated } from './outdated.ts';
import { daemonFolder } from './packages.ts';
import { runCommand, succeeds } from './run.ts';
import { plainStep, type Step } from './step.ts';
import { treeFolder } from './tree.ts';
import { serviceUnit, socketUnit } from './unit-names.ts';

/** A manager of units: the system's, or that of a user. */
export interface Manager {
  readonly folder: string;
  readonly isOfUser: boolean;
  /** How a person calls systemctl and journalctl for it. */
  readonly command: string;
  readonly log: string;
  readonly units: readonly TextFile[];
  /** How to come by one where none answers. */
  readonly absence: string;
  /** The oldest systemd that knows what the units say. */
  readonly leastVersion: number;
  /** What the service runs: whatever changes it leaves a new time of change there. */
  readonly program: readonly string[];
  /** Runs systemctl. @throws Error with what it complained of. */
  readonly systemctl: (...args: string[]) => string;
  /** Whether systemctl says yes. */
  readonly is: (...args: string[]) => boolean;
}

type ManagerParts = Pick<Manager, 'folder' | 'isOfUser' | 'units' | 'absence' | 'leastVersion' | 'program'>;

function makeManager(parts: ManagerParts): Manager {
  const flags = parts.isOfUser ? ['--user'] : [];
  return {
    ...parts,
    command: ['systemctl', ...flags].join(' '),
    log: ['journalctl', ...flags].join(' '),
    systemctl: (...args) => runCommand('systemctl', ...flags, ...args),
    is: (...args) => succeeds('systemctl', ...flags, '--quiet', ...args),
  };
}

/** LoadCredentialEncrypted= that finds a credential by its name alone (systemd's NEWS, 251). */
const leastForSystem = 251;
/** CoredumpFilter= is of 246; `systemctl show --timestamp=`, by which an installation sees whether the agent is an old one, of 247. */
const leastForUsers = 247;

export function systemManager(): Manager {
  const folder = '/etc/systemd/system';
  const units = [socketUnit, serviceUnit].map((name): TextFile => [join(folder, name), readShipped(name)]);
  const absence = 'boot the host with systemd; without it, run kms-agent serve under what starts its services';
  return makeManager({ folder, isOfUser: false, units, absence, leastVersion: leastForSystem, program: [treeFolder] });
}

/** A word of a command line as systemd reads it (systemd.service(5), Command Lines). */
export function quoteWord(word: string): string {
  const escaped = word.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%').replaceAll('$', '$$$$');
  return `"${escaped}"`;
}

/** The program of a user's service, which its installation puts in. */
const programLine = /^ExecStart=.*$/m;

/** A user's service apart from the program that it runs. */
export const withoutProgram = (unit: string): string => unit.replace(programLine, '');

/** The paths that a user's service runs, as quoteWord has written them; none in another unit. */
export function readProgram(unit: string): string[] {
  const words = programLine.exec(unit)?.[0].match(/"(?:[^"\\]|\\.)*"/g) ?? [];
  return words.map((word) => word.slice(1, -1).replaceAll('$$', '$').replaceAll('%%', '%').replaceAll(/\\(.)/g, '$1'));
}

/** Where a user's settings are, those of systemd among them (XDG base directories). */
export const userConfigHome = (): string => process.env['XDG_CONFIG_HOME'] || join(homedir(), '.config');

/** @param program - Node and the program that its units run, as absolute paths. */
export function userManager(configHome: string, program: readonly [node: string, script: string]): Manager {
  const folder = join(configHome, 'systemd', 'user');
  const [node, script] = program.map(quoteWord);
  const service = readShipped(`user/${serviceUnit}`)
    .replace(/^# kms-agent install.*\n/m, '')
    .replace(programLine, () => `ExecStart=${node} ${script} serve`);
  const units: TextFile[] = [
    [join(folder, socketUnit), readShipped(`user/${socketUnit}`)],
    [join(folder, serviceUnit), service],
  ];
  const absence = `log in with a session of your own, not by su or sudo; or loginctl enable-linger, and XDG_RUNTIME_DIR=/run/user/${process.geteuid?.()}`;
  return makeManager({ folder, isOfUser: true, units, absence, leastVersion: leastForUsers, program: [program[0], daemonFolder] });
}

/** No systemd answers. */
export class NoManager extends Error {
  override readonly name = 'NoManager';
}

function askVersion(systemctl: Manager['systemctl']): string {
  let version: string;
  try {
    version = systemctl('show', '--property=Version', '--value');
  } catch (cause) {
    throw new NoManager((cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s+/g, ' '), { cause });
  }
  if (version === '') throw new NoManager('systemctl shows no version, as in a chroot'); // where it asks nobody and ends with 0
  return version;
}

/**
 * How the systemd that runs compares with what the units need: an older one ignores what it does not know, so that the agent would stay locked, or without a part of its sandbox.
 * @throws NoManager where none answers.
 */
export function compareVersion({ leastVersion, systemctl }: Pick<Manager, 'leastVersion' | 'systemctl'>): { readonly said: string; readonly isOld: boolean } {
  const version = askVersion(systemctl);
  const number = /^v?(\d+)/.exec(version)?.[1];
  return { said: `${version}; the units need ${leastVersion} or newer`, isOld: number !== undefined && Number(number) < leastVersion };
}

/** @throws AgentError `ERR_UNSUPPORTED_OPERATION` without a systemd that answers, and for one that does not know what the units say. */
export function requireVersion(manager: Pick<Manager, 'leastVersion' | 'systemctl' | 'absence'>): void {
  const refuse = (hint: string): AgentError => new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: `${hint}. Nothing was changed.` });
  try {
    const { said, isOld } = compareVersion(manager);
    if (isOld) throw refuse(`systemd here is ${said}`);
  } catch (error) {
    if (error instanceof NoManager) throw refuse(`No systemd answers: ${error.message}. To mend it: ${manager.absence}`);
    throw error;
  }
}

/** Whether files of a unit changed after systemd read them. */
const isStale = ({ systemctl }: Manager): boolean =>
  [socketUnit, serviceUnit].some((name) => systemctl('show', '--property=NeedDaemonReload', '--value', name) === 'yes');

/** Whether a process of the service may be there: one that starts, or ends, runs the program that it was started with. */
function isAtWork({ systemctl }: Manager): boolean {
  return !['inactive', 'failed'].includes(systemctl('show', '--property=ActiveState', '--value', serviceUnit));
}

/**
 * The units, and a socket that listens from now on and after each start.
 * @param isChanging - whether an earlier step changes the program; a dry run leaves nothing on the disk that would say so.
 */
export function unitSteps(manager: Manager, isChanging: () => boolean = () => false): Step[] {
  const { folder, units, systemctl, is } = manager;
  return [
    plainStep(
      'units',
      `write ${units.map(([path]) => path).join(' and ')}`,
      () => units.every(holds) && !isStale(manager),
      () => {
        mkdirSync(folder, { recursive: true });
        for (const unit of units) if (!holds(unit)) writePublic(unit);
        systemctl('daemon-reload');
      },
    ),
    plainStep(
      'socket',
      `enable and start ${socketUnit}`,
      () => is('is-enabled', socketUnit) && is('is-active', socketUnit),
      () => void systemctl('enable', '--now', socketUnit),
    ),
    plainStep(
      'restart',
      `restart ${serviceUnit} if it runs another version; callers wait for it at the socket`,
      () => !isAtWork(manager) || !(isChanging() || !units.every(holds) || isOutdated(manager)),
      () => {
        dateAnew(manager);
        systemctl('restart', serviceUnit);
      },
    ),
  ];
}

/** Takes the units away again. Drop-ins are the administrator's and stay. */
export function unitRemovalSteps({ units, systemctl, is }: Manager): Step[] {
  const paths = units.map(([path]) => path);
  const names = [socketUnit, serviceUnit];
  return [
    plainStep(
      'stop',
      `stop and disable ${names.join(' and ')}`,
      () => !names.some((name) => is('is-active', name) || is('is-enabled', name)),
      () => void systemctl('disable', '--now', ...names),
    ),
    plainStep(
      'units',
      `remove ${paths.join(' and ')}`,
      () => !units.some(([path]) => existsSync(path)),
      () => {
        for (const name of names) if (is('is-failed', name)) systemctl('reset-failed', name); // else it stays in its lists for good
        removeFiles(paths);
        systemctl('daemon-reload');
      },
    ),
  ];
}
