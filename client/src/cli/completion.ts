import type { Command } from 'commander';
import { UsageError } from './files.ts';

/** What completion needs to know of a command; that of commander is one. */
export interface CommandWords {
  name(): string;
  readonly commands: readonly CommandWords[];
  readonly options: readonly { readonly long?: string | undefined }[];
}

/** Words that may follow each path of commands: sub-commands and long flags. */
function wordsByPath(command: CommandWords, path = command.name()): [path: string, words: string[]][] {
  const words = [...command.commands.map((child) => child.name()), ...command.options.flatMap(({ long }) => (long ? [long] : []))];
  return [[path, words], ...command.commands.flatMap((child) => wordsByPath(child, `${path} ${child.name()}`))];
}

/** The paths of sub-commands as patterns of a shell's `case`, and a line of it for each path, which sets what may follow. */
function casesOf(program: CommandWords, set: (words: readonly string[]) => string): { known: string; cases: string } {
  const paths = wordsByPath(program);
  const known = paths.slice(1).map(([path]) => `'${path}'`);
  return { known: known.join('|'), cases: paths.map(([path, words]) => `    '${path}') ${set(words)};;`).join('\n') };
}

function makeBash(program: CommandWords): string {
  const name = program.name();
  const own = `_${name.replaceAll('-', '_')}`;
  const { known, cases } = casesOf(program, (words) => `words='${words.join(' ')}'`);
  return `${own}() {
  local path=${name} word words=''
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in ${known}) path="$path $word";; esac
  done
  case $path in
${cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F ${own} ${name}`;
}

/** For a folder of fpath, where the first call loads the file and must complete already, and for `source`. */
function makeZsh(program: CommandWords): string {
  const name = program.name();
  const { known, cases } = casesOf(program, (words) => `known=(${words.join(' ')})`);
  return `#compdef ${name}
_${name}() {
  local line=${name} word
  local -a known
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$line $word" in ${known}) line="$line $word";; esac
  done
  case $line in
${cases}
  esac
  compadd -a known || _files
}
if [[ $funcstack[1] == _${name} ]]; then _${name} "$@"; else compdef _${name} ${name}; fi`;
}

function makeFish(program: CommandWords): string {
  const name = program.name();
  return wordsByPath(program)
    .flatMap(([path, words]) => {
      const parents = path.split(' ').slice(1);
      const condition = parents.length === 0 ? '__fish_use_subcommand' : parents.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and ');
      return words.map((word) => `complete -c ${name} -n '${condition}' ${word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`}`);
    })
    .join('\n');
}

/** Makers of the script for each shell. */
export const completionMakers: ReadonlyMap<string, (program: CommandWords) => string> = new Map([
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
      const make = completionMakers.get(shell);
      if (!make) throw new UsageError(`there is completion for ${[...completionMakers.keys()].join(', ')}, not for ${shell}`);
      process.stdout.write(`${make(program)}\n`);
    });
}
