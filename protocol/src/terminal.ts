import { openSync, readFileSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { AgentError } from './errors.ts';

/** A whole descriptor less one line ending at its end. */
function readDescriptor(fd: number): string {
  return readFileSync(fd, 'utf8').replace(/\r?\n$/, '');
}

function openTerminal(): number {
  try {
    return openSync('/dev/tty', 'r+');
  } catch (cause) {
    throw new AgentError('ERR_UNLOCK_FAILED', { hint: 'There is no terminal to ask on; give the secret with --passphrase-fd N.' }, { cause });
  }
}

/** Asks on the terminal without echo, whatever standard input is. */
async function askTerminal(prompt: string): Promise<string> {
  const fd = openTerminal();
  const terminal = new ReadStream(fd);
  terminal.setRawMode(true);
  process.stderr.write(prompt); // only now: what a quick hand types before would be echoed
  let line = '';
  try {
    for await (const chunk of terminal) {
      for (const character of String(chunk)) {
        if (character === '\r' || character === '\n') return line;
        if (character === '\u0003' || character === '\u0004') throw new AgentError('ERR_UNLOCK_FAILED', { hint: 'Cancelled.' });
        line = character === '\u007f' ? line.slice(0, -1) : line + character;
      }
    }
    return line;
  } finally {
    terminal.setRawMode(false);
    terminal.destroy();
    process.stderr.write('\n');
  }
}

/** Reads a secret from a descriptor, or asks for it on the terminal; never from an argument or the environment. */
export async function readSecret(prompt: string, fd?: number): Promise<string> {
  return fd === undefined ? await askTerminal(prompt) : readDescriptor(fd);
}

/** Reads a new secret; on the terminal twice. @throws AgentError `ERR_INVALID_PARAMS` when it is shorter than 8 bytes or the two differ. */
export async function readNewSecret(prompt: string, fd?: number): Promise<string> {
  const secret = await readSecret(prompt, fd);
  if (Buffer.byteLength(secret) < 8) throw new AgentError('ERR_INVALID_PARAMS', { reason: 'a passphrase must have at least 8 bytes' });
  if (fd === undefined && (await askTerminal('Again: ')) !== secret) throw new AgentError('ERR_INVALID_PARAMS', { reason: 'the two passphrases differ' });
  return secret;
}
