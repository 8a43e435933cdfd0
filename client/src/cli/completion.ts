import type { Command } from 'commander';
import { UsageError } from './files.ts';

/** Words that may follow each path of commands: sub-commands and long flags. */
function wordsByPath(command: Command, path = 'kms'): [path: string, words: string[]][] {
  const words = [...command.commands.map((child) => child.name()), ...command.options.flatMap(({ long }) => (long ? [long] : []))];
  return [[path, words], ...command.commands.flatMap((child) => wordsByPath(child, `${path} ${child.name()}`))];
}

function makeBash(program: Command): string {
  const cases = wordsByPath(program).map(([path, words]) => `    '${path}') words='${words.join(' ')}';;`);
  return `_kms() {
  local path=kms word words=''
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ $word == -* ]] || path="$path $word"; done
  case $path in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _kms kms`;
}

const makeZsh = (program: Command): string => `#compdef kms\nautoload -U +X bashcompinit && bashcompinit\n${makeBash(program)}`;

function makeFish(program: Command): string {
  return wordsByPath(program)
    .flatMap(([path, words]) => {
      const parents = path.split(' ').slice(1);
      const condition = parents.length === 0 ? '__fish_use_subcommand' : parents.map((name) => `__fish_seen_subcommand_from ${name}`).join('; and ');
      return words.map((word) => `complete -c kms -n '${condition}' ${word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`}`);
    })
    .join('\n');
}

const makers: ReadonlyMap<string, (program: Command) => string> = new Map([
  ['bash', makeBash],
  ['zsh', makeZsh],
  ['fish', makeFish],
]);

/** Adds `completion`: a script for the shell, made from the commands there are. */
export function addCompletion(program: Command): void {
  program
    .command('completion <shell>')
    .description('print a completion script for bash, zsh or fish')
    .addHelpText('after', '\nExample:\n  $ source <(kms completion bash)')
    .action((shell: string) => {
      const make = makers.get(shell);
      if (!make) throw new UsageError(`there is completion for ${[...makers.keys()].join(', ')}, not for ${shell}`);
      process.stdout.write(`${make(program)}\n`);
    });
}
