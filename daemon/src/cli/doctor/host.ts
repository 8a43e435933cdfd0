import { existsSync, lstatSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { credentialStore } from '../../os/credential-store.ts';
import { rootCredential } from '../../os/credentials.ts';
import { vaultPath } from '../../vault/folder.ts';
import { peekKeyslots } from '../../vault/peek.ts';
import { installCommand, systemPlaces } from '../install/host.ts';
import { findForeign, foldersAbove, walkTree } from '../install/root-only.ts';
import { treeFolder } from '../install/tree.ts';
import { systemManager, userConfigHome, userManager } from '../install/units.ts';
import { type Finding, look, seeAs, wrong } from './finding.ts';
import { lookAtUnits } from './units.ts';

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

/** The program that the units run: whoever can change it has the keys. */
function lookAtProgram(): string {
  if (!existsSync(treeFolder)) throw wrong(`${treeFolder} is not there`, installCommand);
  const above = findForeign(foldersAbove(treeFolder));
  if (above !== undefined) throw wrong(above, `chown root and chmod go-w; then ${installCommand}, because the program in it may be another's`);
  const foreign = findForeign(walkTree(treeFolder));
  if (foreign !== undefined) throw wrong(foreign, `${installCommand}, which replaces the program whole and restarts the agent`);
  return `${treeFolder}, which only root can change`;
}

/** What is known of the system's agent from outside it. */
export async function lookAtHost(): Promise<Finding[]> {
  const units = await lookAtUnits({ manager: systemManager(), install: installCommand });
  return [await look('program', lookAtProgram), ...units, await look('credential', lookAtCredential)];
}

/** The same of a user's own agent, where `kms-agent install --user` has been. */
export async function lookAtOwnUnits(): Promise<Finding[]> {
  const manager = userManager(userConfigHome(), [process.execPath, realpathSync(process.argv[1] ?? '')]);
  return manager.units.some(([path]) => existsSync(path)) ? await lookAtUnits({ manager, install: 'kms-agent install --user' }) : [];
}
