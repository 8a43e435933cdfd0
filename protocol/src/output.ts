import { writeSync } from 'node:fs';

/** A reader that has seen enough, as in `kms key list | head`, ends a program as it ends any other: 128 + SIGPIPE. */
const endedBySigpipe = 141;
/** As for settings and files that are not as they must be. */
const unwritable = 2;

let unsaid = '';

/** What a person must hear if from now on standard output cannot be written: of what is done and is said only once. */
export function ifUnsaid(words: string): void {
  unsaid = words;
}

/** From now on output that cannot be written ends this program, with the reason on standard error unless a reader went away. @param program - its name. */
export function endWithOutput(program: string): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    const isReaderGone = error.code === 'EPIPE';
    const reason = isReaderGone ? 'nobody reads it' : error.message;
    if (!isReaderGone || unsaid !== '') complain(`${program}: standard output cannot be written: ${reason}${unsaid === '' ? '' : `\n${unsaid}`}\n`);
    process.exit(isReaderGone ? endedBySigpipe : unwritable);
  });
}

/** Now: the process ends in this turn, and what a stream holds back ends with it. */
function complain(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Nowhere is left to say so; the exit status does.
  }
}
