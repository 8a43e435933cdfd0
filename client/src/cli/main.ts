import { readFileSync } from 'node:fs';
import { endWithOutput } from '@kms-agent/protocol/terminal';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { checkTimeout } from '../deadline.ts';
import { addCertificateCommands } from './certificate.ts';
import { addCompletion } from './completion.ts';
import { addEverydayCommands } from './everyday.ts';
import { addLargeFileCommands } from './large-files.ts';
import { addManagementCommands } from './manage.ts';
import { exitStatusOf, explainError, type GlobalOptions } from './session.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }; // our own package

function parseTimeout(text: string): number {
  try {
    return checkTimeout(Number(text));
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : 'It takes milliseconds.');
  }
}

const program = new Command('kms')
  .description('Encrypt, decrypt, sign and manage keys with the kms-agent on this machine.')
  .version(version)
  .option('--socket <path>', "the agent's socket (default: KMS_AGENT_SOCK, else the user's agent, else the system's)")
  .option('--json', 'answer as JSON')
  .option('--timeout <ms>', 'how long to wait for an answer', parseTimeout)
  .addHelpText(
    'after',
    '\nExamples:\n  $ kms encrypt secret.txt -o secret.kms\n  $ kms key list\n\nExit status: 0 done or yes, 1 refused or not valid, 2 usage, 3 no agent, 4 locked or not initialized.',
  );

addEverydayCommands(program);
addLargeFileCommands(program);
addCertificateCommands(program);
addManagementCommands(program);
addCompletion(program);

/** Sub-commands are made before this is called on each: commander does not hand it down. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) throwInsteadOfExit(child);
}
throwInsteadOfExit(program);

endWithOutput('kms');

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    process.stderr.write(`kms: ${explainError(error, program.opts<GlobalOptions>().socket)}\n`);
    process.exitCode = exitStatusOf(error);
  }
}
