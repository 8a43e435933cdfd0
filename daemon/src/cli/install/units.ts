import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { holds, readShipped, removeFiles, type TextFile, writePublic } from './files.ts';
import { runCommand, succeeds } from './run.ts';
import { plainStep, type Step } from './step.ts';

const socketUnit = 'kms-agent.socket';
export const serviceUnit = 'kms-agent.service';

/** A manager of units: the system's, or that of a user. */
export interface Manager {
  readonly folder: string;
  readonly units: readonly TextFile[];
  /** Runs systemctl. @throws Error with what it complained of. */
  readonly systemctl: (...args: string[]) => string;
  /** Whether systemctl says yes. */
  readonly is: (...args: string[]) => boolean;
}

function makeManager(folder: string, flags: readonly string[], units: readonly TextFile[]): Manager {
  return {
    folder,
    units,
    systemctl: (...args) => runCommand('systemctl', ...flags, ...args),
    is: (...args) => succeeds('systemctl', ...flags, '--quiet', ...args),
  };
}

export function systemManager(): Manager {
  const folder = '/etc/systemd/system';
  return makeManager(
    folder,
    [],
    [socketUnit, serviceUnit].map((name) => [join(folder, name), readShipped(name)]),
  );
}

/** A word of a command line as systemd reads it (systemd.service(5), Command Lines). */
export function quoteWord(word: string): string {
  const escaped = word.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%').replaceAll('$', '$$$$');
  return `"${escaped}"`;
}

/** @param program - Node and the program that its units run, as absolute paths. */
export function userManager(configHome: string, program: readonly [node: string, script: string]): Manager {
  const folder = join(configHome, 'systemd', 'user');
  const [node, script] = program.map(quoteWord);
  const service = readShipped(`user/${serviceUnit}`)
    .replace(/^# kms-agent install.*\n/m, '')
    .replace(/^ExecStart=.*$/m, () => `ExecStart=${node} ${script} serve`);
  return makeManager(
    folder,
    ['--user'],
    [
      [join(folder, socketUnit), readShipped(`user/${socketUnit}`)],
      [join(folder, serviceUnit), service],
    ],
  );
}

/** The units, and a socket that listens from now on and after each start. @param changed - whether the program is another one since this run began. */
export function unitSteps({ folder, units, systemctl, is }: Manager, changed: () => boolean): Step[] {
  let isNew = false;
  return [
    plainStep(
      'units',
      `write ${units.map(([path]) => path).join(' and ')}`,
      () => units.every(holds),
      () => {
        mkdirSync(folder, { recursive: true });
        for (const unit of units) writePublic(unit);
        systemctl('daemon-reload');
        isNew = true;
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
      () => !((isNew || changed()) && is('is-active', serviceUnit)),
      () => void systemctl('restart', serviceUnit),
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
        removeFiles(paths);
        systemctl('daemon-reload');
      },
    ),
  ];
}
