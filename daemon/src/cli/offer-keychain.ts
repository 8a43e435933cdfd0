import { createInterface } from 'node:readline/promises';
import { isAgentError } from '@kms-agent/protocol';
import { Keychain } from '../os/keychain.ts';

/** An account that nobody has: whether there is a keychain that answers. */
const probeAccount = 'is there a keychain';

async function isReachable(keychain: Keychain): Promise<boolean> {
  try {
    await keychain.read(probeAccount);
    return true;
  } catch (error) {
    if (isAgentError(error, 'ERR_STORE_UNAVAILABLE')) return false;
    throw error;
  }
}

async function ask(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(question).finally(() => terminal.close());
  return /^(y(es)?)?$/i.test(answer.trim());
}

/** @throws AgentError `ERR_STORE_UNAVAILABLE` when there is none to ask. */
export async function requireKeychain(): Promise<Keychain> {
  const keychain = new Keychain();
  await keychain.read(probeAccount);
  return keychain;
}

/**
 * The keychain that shall open a new vault, if any: as was said, and else as a person on a terminal answers, where there is a keychain to ask.
 * @param wanted - what was said. @param isAttended - whether somebody can be asked.
 * @throws AgentError `ERR_STORE_UNAVAILABLE` when it was asked for and is not there.
 */
export async function chooseKeychain(wanted: boolean | undefined, isAttended: boolean): Promise<Keychain | undefined> {
  if (wanted === false) return undefined;
  if (wanted) return await requireKeychain();
  const keychain = new Keychain();
  if (!isAttended || process.stdin.isTTY !== true || !(await isReachable(keychain))) return undefined;
  return (await ask('Shall the OS keychain open this vault whenever you are logged in? [Y/n] ')) ? keychain : undefined;
}
