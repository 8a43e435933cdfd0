import { openSync, readSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { AgentError } from './errors.ts';

export { endWithOutput, ifUnsaid } from './output.ts';

const pollMs = 5;
const nobody = new Int32Array(new SharedArrayBuffer(4));

/** Reads what is there. @returns the number of bytes, 0 at the end, undefined when there is nothing yet. */
function readAvailable(fd: number, buffer: Uint8Array): number | undefined {
  try {
    return readSync(fd, buffer);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return undefined;
    throw error;
  }
}

/**
 * Reads a descriptor to its end, and waits for what is slow to come. readFileSync fails with EAGAIN there: whoever imports `node:process`,
 * as commander does, makes a pipe at standard input non-blocking.
 */
export function readDescriptor(fd: number): Buffer {
  const pieces: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(65_536);
    const length = readAvailable(fd, buffer);
    if (length === 0) return Buffer.concat(pieces);
    if (length === undefined) Atomics.wait(nobody, 0, 0, pollMs);
    else pieces.push(buffer.subarray(0, length));
  }
}

/** A whole descriptor less one line ending at its end. */
const readLine = (fd: number): string =>
  readDescriptor(fd)
    .toString()
    .replace(/\r?\n$/, '');

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
  return fd === undefined ? await askTerminal(prompt) : readLine(fd);
}

/** Reads a new secret; on the terminal twice. @throws AgentError `ERR_INVALID_PARAMS` when it is shorter than 8 bytes or the two differ. */
export async function readNewSecret(prompt: string, fd?: number): Promise<string> {
  const secret = await readSecret(prompt, fd);
  if (Buffer.byteLength(secret) < 8) throw new AgentError('ERR_INVALID_PARAMS', { reason: 'a passphrase must have at least 8 bytes' });
  if (fd === undefined && (await askTerminal('Again: ')) !== secret) throw new AgentError('ERR_INVALID_PARAMS', { reason: 'the two passphrases differ' });
  return secret;
}
