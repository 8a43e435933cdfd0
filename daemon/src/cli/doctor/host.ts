import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { vaultPath } from '../../vault/folder.ts';
import { peekKeyslots } from '../../vault/peek.ts';
import { installCommand, systemPlaces } from '../install/host.ts';
import { findForeign, foldersAbove, walkTree } from '../install/root-only.ts';
import { runCommand } from '../install/run.ts';
import { treeFolder } from '../install/tree.ts';
import { compareVersion, serviceUnit, socketUnit, systemManager } from '../install/units.ts';
import { type Finding, look, seeAs, wrong } from './finding.ts';

/** What systemd says of a unit, by property. */
function showUnit(unit: string): Readonly<Record<string, string>> {
  const names = 'ActiveState,Result,ExecMainStatus,NeedDaemonReload,DropInPaths,FragmentPath';
  const lines = runCommand('systemctl', 'show', `--property=${names}`, unit).split('\n');
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

/** A unit as it was shipped, which systemd has read. Drop-ins are the administrator's: they are named. */
function lookAtUnit(path: string, text: string): string {
  if (!existsSync(path)) throw wrong(`${path} is not there`, installCommand);
  const { NeedDaemonReload, DropInPaths = '', FragmentPath = path } = showUnit(basename(path));
  if (readFileSync(path, 'utf8') !== text)
    throw wrong(`${path} is not the unit of this version`, `${installCommand}; what you need otherwise belongs in a drop-in`);
  if (FragmentPath !== path) throw wrong(`systemd reads ${FragmentPath || 'no file'} in the place of ${path}`, 'see what systemctl cat shows');
  if (NeedDaemonReload === 'yes') throw wrong('systemd has not read the files of the unit as they are', 'systemctl daemon-reload, and restart it');
  return `${path}, as shipped${DropInPaths === '' ? '' : `; note the drop-ins ${DropInPaths}`}`;
}

const restart = `systemctl reset-failed ${serviceUnit} ${socketUnit} and systemctl start ${socketUnit}`;
const remedies: Readonly<Record<string, string>> = {
  '2': `see what journalctl -u ${serviceUnit} names in settings or files; then ${restart}`,
  '243': `the credential cannot be decrypted: move ${join(credentialStore, rootCredential)} away; ${restart}; kms unlock; then make a new one`,
};

function lookAtState(unit: string): string {
  const { ActiveState = '', Result = '', ExecMainStatus = '' } = showUnit(unit);
  const said = `${ActiveState}, result ${Result}${ExecMainStatus === '' ? '' : `, exit status ${ExecMainStatus}`}`;
  if (ActiveState === 'failed') throw wrong(said, remedies[ExecMainStatus] ?? `see journalctl -u ${unit}; then ${restart}`);
  if (unit === socketUnit && ActiveState !== 'active') throw wrong(`${said}: nobody can connect`, `systemctl start ${socketUnit}`);
  return said;
}

/** Whether it is there. @throws what lstat(2) says of what this user may not see: existsSync says that it is not there. */
const isThere = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;

function needsCredential(dataDir: string): boolean {
  return isThere(vaultPath(dataDir)) && peekKeyslots(dataDir).some(({ type }) => type === 'credential');
}

/** Whether a keyslot that a credential opens has one. */
function lookAtCredential(): string {
  const { dataDir } = systemPlaces;
  if (!seeAs('root', `what opens the vault in ${dataDir}`, () => needsCredential(dataDir))) return 'no keyslot of this vault needs it';
  const path = join(credentialStore, rootCredential);
  if (!seeAs('root', path, () => isThere(path)))
    throw wrong(`${path} is not there, and a keyslot needs it`, 'kms unlock; then kms-agent keyslot add credential --system, with the agent stopped');
  return path;
}

function lookAtVersion(): string {
  const { said, isOld } = compareVersion(systemManager());
  if (isOld) throw wrong(`${said}: what it does not know of them it ignores`, 'a newer release of the system');
  return said;
}

/** The program that the units run: whoever can change it has the keys. */
function lookAtProgram(): string {
  if (!existsSync(treeFolder)) throw wrong(`${treeFolder} is not there`, installCommand);
  const above = findForeign(foldersAbove(treeFolder));
  if (above !== undefined) throw wrong(above, `chown root and chmod go-w; then ${installCommand}, because the program in it may be another's`);
  const foreign = findForeign(walkTree(treeFolder));
  if (foreign !== undefined) throw wrong(foreign, `${installCommand}, which replaces the program whole and restarts the agent`);
  return `${treeFolder}, which only root can change`;
}

/** What systemd has and says of the system's agent. */
export async function lookAtHost(): Promise<Finding[]> {
  const findings: Finding[] = [await look('systemd', lookAtVersion), await look('program', lookAtProgram)];
  for (const [path, text] of systemManager().units) findings.push(await look(`unit ${path}`, () => lookAtUnit(path, text)));
  for (const unit of [socketUnit, serviceUnit]) findings.push(await look(`state of ${unit}`, () => lookAtState(unit)));
  return [...findings, await look('credential', lookAtCredential)];
}
