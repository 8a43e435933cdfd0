import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { serviceUnit, socketUnit } from '../install/unit-names.ts';
import { compareVersion, type Manager, NoManager, readProgram, withoutProgram } from '../install/units.ts';
import { type Finding, look, wrong } from './finding.ts';

/** A manager of units, and what installs them there. */
export interface Installed {
  readonly manager: Manager;
  readonly install: string;
}

function lookAtVersion(manager: Manager): string {
  try {
    const { said, isOld } = compareVersion(manager);
    if (isOld) throw wrong(`${said}: what it does not know of them it ignores`, 'a newer release of the system');
    return said;
  } catch (error) {
    throw error instanceof NoManager ? wrong(`none answers: ${error.message}`, manager.absence) : error;
  }
}

const properties = 'ActiveState,Result,ExecMainStatus,NRestarts,NeedDaemonReload,DropInPaths,FragmentPath';

/** What systemd says of a unit, by property. */
function showUnit({ systemctl }: Manager, unit: string): Readonly<Record<string, string>> {
  const lines = systemctl('show', `--property=${properties}`, unit).split('\n');
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

/** A user's unit runs what installed it, which may be another program than this one; the rest is as shipped. */
function requireShipped({ manager, install }: Installed, path: string, text: string): void {
  const found = readFileSync(path, 'utf8');
  const isSame = manager.isOfUser ? withoutProgram(found) === withoutProgram(text) : found === text;
  if (!isSame) throw wrong(`${path} is not the unit of this version`, `${install}; what you need otherwise belongs in a drop-in`);
  const gone = manager.isOfUser ? readProgram(found).find((program) => !existsSync(program)) : undefined;
  if (gone !== undefined) throw wrong(`${path} runs ${gone}, which is not there`, install);
}

/** A unit as it was shipped, which systemd has read. Drop-ins are the administrator's: they are named. */
function lookAtUnit(installed: Installed, path: string, text: string): string {
  const { manager, install } = installed;
  if (!existsSync(path)) throw wrong(`${path} is not there`, install);
  const { NeedDaemonReload, DropInPaths = '', FragmentPath = path } = showUnit(manager, basename(path));
  requireShipped(installed, path, text);
  if (FragmentPath !== path) throw wrong(`systemd reads ${FragmentPath || 'no file'} in the place of ${path}`, `see what ${manager.command} cat shows`);
  if (NeedDaemonReload === 'yes') throw wrong('systemd has not read the files of the unit as they are', `${manager.command} daemon-reload, and restart it`);
  return `${path}, as shipped${DropInPaths === '' ? '' : `; note the drop-ins ${DropInPaths}`}`;
}

/** What to do about a service that failed, by its exit status. */
function remedy({ command, log }: Manager, unit: string, status: string): string {
  const restart = `${command} reset-failed ${serviceUnit} ${socketUnit} and ${command} start ${socketUnit}`;
  if (status === '2') return `see what ${log} -u ${serviceUnit} names in settings or files; then ${restart}`;
  if (status === '243')
    return `the credential cannot be decrypted: move ${join(credentialStore, rootCredential)} away; ${restart}; kms unlock; then make a new one`;
  return `see ${log} -u ${unit}; then ${restart}`;
}

function describeUnit({ ActiveState, Result, ExecMainStatus = '', NRestarts = '0' }: Readonly<Record<string, string>>): string {
  const status = ExecMainStatus === '' ? '' : `, exit status ${ExecMainStatus}`;
  const restarts = NRestarts === '0' ? '' : `, started again by itself ${NRestarts === '1' ? 'once' : `${NRestarts} times`}`;
  return `${ActiveState}, result ${Result}${status}${restarts}`;
}

function lookAtState(manager: Manager, unit: string): string {
  const shown = showUnit(manager, unit);
  const { ActiveState = '', ExecMainStatus = '', NRestarts = '0' } = shown;
  const said = describeUnit(shown);
  if (ActiveState === 'failed') throw wrong(said, remedy(manager, unit, ExecMainStatus));
  // Between two tries of a crash loop its result is success, and its exit status that of the try that runs.
  if (ActiveState === 'activating' && NRestarts !== '0') throw wrong(`${said}: its start ends each time`, `see ${manager.log} -u ${unit}`);
  if (unit === socketUnit && ActiveState !== 'active') throw wrong(`${said}: nobody can connect`, `${manager.command} start ${socketUnit}`);
  return said;
}

function isAnswering(manager: Manager): boolean {
  try {
    compareVersion(manager);
    return true;
  } catch {
    return false;
  }
}

/** What systemd has and says of the agent's units; where none answers, that alone. */
export async function lookAtUnits(installed: Installed): Promise<Finding[]> {
  const { manager } = installed;
  const findings = [await look('systemd', () => lookAtVersion(manager))];
  if (!isAnswering(manager)) return findings;
  for (const [path, text] of manager.units) findings.push(await look(`unit ${path}`, () => lookAtUnit(installed, path, text)));
  for (const unit of [socketUnit, serviceUnit]) findings.push(await look(`state of ${unit}`, () => lookAtState(manager, unit)));
  return findings;
}
