import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { agentProgram, cleanEnv, initVault, passphrase, type TempFolder } from './agent.ts';

/** Adds a keyslot for a secret. @returns its id, or what was complained of. */
export async function addKeyslot(folder: TempFolder, secret: string, proof = passphrase): Promise<string> {
  const args = ['keyslot', 'add', 'credential', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--secret-fd', '4', '--json'];
  const child = spawn(process.execPath, [agentProgram, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'], env: cleanEnv() });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  for (const [fd, text] of [[3, proof] as const, [4, secret] as const]) (child.stdio[fd] as NodeJS.WritableStream).end(text); // stdio above makes them pipes
  const [code] = (await once(child, 'close')) as [number]; // as node:child_process documents it
  return code === 0 ? (JSON.parse(said) as { keyslotId: string }).keyslotId : said;
}

/** A folder of credentials as systemd makes one. */
export function credentials(folder: TempFolder, text?: string): NodeJS.ProcessEnv {
  const path = folder.join('credentials');
  mkdirSync(path, { recursive: true, mode: 0o700 });
  if (text !== undefined) writeFileSync(folder.join('credentials', 'kms-agent-root'), text);
  return cleanEnv({ CREDENTIALS_DIRECTORY: path });
}

export const newSecret = (): string => randomBytes(32).toString('base64');

/** Makes a vault in a folder that opens by itself. @returns the environment of an agent that opens it. */
export async function initSelfOpening(folder: TempFolder): Promise<NodeJS.ProcessEnv> {
  await initVault(folder);
  const secret = newSecret();
  await addKeyslot(folder, secret);
  return credentials(folder, secret);
}
