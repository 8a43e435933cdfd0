import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cleanEnv, repository, TempFolder } from '../kit/agent.ts';
import { makePages } from '../pages/pages.ts';

const pages = makePages();
const read = (path: string): string => readFileSync(join(repository, path), 'utf8');

test.each([...pages])('%s is what the sources make of it (else: node test/pages/main.ts)', (path, text) => {
  expect(read(path)).toBe(text);
});

test.skipIf(!existsSync('/usr/bin/groff'))('the man pages: groff has nothing to say about them, and every command is there (needs groff)', () => {
  for (const [path, words] of [
    ['client/man/kms.1', ['kms key create', 'kms encrypt-file [file]', '--subject <name>', '--recipient <age1>', '$ kms csr -k alias/shop']],
    ['daemon/man/kms-agent.1', ['kms-agent init', 'kms-agent hsm list', '--data-dir <dir>', 'kms-agent dev -- npm test']],
  ] as const) {
    const { status, stdout, stderr } = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-P-cbou', join(repository, path)], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
    for (const word of words) expect(stdout.replace(/\s+/g, ' ')).toContain(word);
    expect(stdout).not.toContain('‐'); // a hyphen that a shell would not take for one
  }
});

test.each([
  ['client/completions/kms.bash', '_kms', 'kms key cr', 'create'],
  ['client/completions/kms.bash', '_kms', 'kms encrypt-file secret.txt --rec', '--recipient'],
  ['client/completions/kms.bash', '_kms', 'kms key show alias/key --js', ''],
  ['client/completions/kms.bash', '_kms', 'kms cs', 'csr'],
  ['daemon/completions/kms-agent.bash', '_kms_agent', 'kms-agent hsm li', 'list'],
])('%s: %s completes "%s"', (path, name, line, expected) => {
  const words = line.split(' ');
  const script = `source ${join(repository, path)}; COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; ${name}; echo "\${COMPREPLY[*]}"`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', script], { encoding: 'utf8' });
  expect([stdout.trim(), stderr]).toEqual([expected, '']);
});

const lines = [
  ['kms', 'kms key cr', 'kms key create'],
  ['kms', 'kms encrypt-file secret.txt --rec', 'kms encrypt-file secret.txt --recipient'],
  ['kms', 'kms cs', 'kms csr'],
  ['kms-agent', 'kms-agent hsm li', 'kms-agent hsm list'],
  ['kms-agent', 'kms-agent keyslot add credential --sys', 'kms-agent keyslot add credential --system'],
] as const;
const scriptOf = (name: string, shell: string): string => join(repository, name === 'kms' ? 'client' : 'daemon', 'completions', `${name}.${shell}`);

/** A terminal with zsh on it: its first Tab must complete already. Prints what stands on its line afterwards. */
const zshScript = `
zmodload zsh/zpty
zpty shell TERM=dumb zsh -f -i
zpty -w shell 'PS1= PS2= RPS1=; autoload -Uz compinit; bindkey -e'
zpty -w shell "$1"
zpty -w shell 'show() { print -r -- "LINE<$BUFFER>" }; zle -N show; bindkey "^X" show; print -r -- rea""dy'
zpty -r shell said '*ready*'
zpty -w -n shell "$2"$'\\t\\x18'
zpty -r shell said '*LINE<*>*'
print -r -- "$said"
`;

describe.skipIf(!existsSync('/usr/bin/zsh'))('zsh (needs zsh)', () => {
  test.each(lines)('the completion of %s, as a file that is found by its name: "%s" becomes "%s"', (name, line, expected) => {
    using folder = new TempFolder();
    symlinkSync(scriptOf(name, 'zsh'), folder.join(`_${name}`)); // as it is installed
    expect(completeWithZsh(`fpath=(${folder.path} $fpath); compinit -u -D`, line)).toBe(expected);
  });

  test('what kms completion prints can be sourced', () => {
    expect(completeWithZsh(`compinit -u -D; source ${scriptOf('kms', 'zsh')}`, 'kms key cr')).toBe('kms key create');
  });
});

function completeWithZsh(prepare: string, line: string): string {
  const { stdout } = spawnSync('zsh', ['-f', '-c', zshScript, 'zsh', prepare, line], { encoding: 'utf8', timeout: 60_000, env: cleanEnv() });
  return /LINE<([^>]*)>/.exec(stdout)?.[1]?.trim() ?? stdout;
}

describe.skipIf(!existsSync('/usr/bin/fish'))('fish (needs fish)', () => {
  test.each(lines)('the completion of %s: "%s" becomes "%s"', (name, line, expected) => {
    using folder = new TempFolder();
    const env = cleanEnv({ HOME: folder.path, XDG_CONFIG_HOME: folder.path });
    const { stdout } = spawnSync('fish', ['--no-config', '-c', `source ${scriptOf(name, 'fish')}; complete -C '${line}'`], { encoding: 'utf8', env });
    expect(stdout.trim().split('\t')[0]).toBe(expected.split(' ').at(-1));
  });
});

test('the packages ship their pages', () => {
  for (const name of ['client', 'daemon']) {
    const { files, man } = JSON.parse(read(`${name}/package.json`)) as { files: string[]; man: string };
    expect(files).toEqual(expect.arrayContaining(['man', 'completions']));
    expect(existsSync(join(repository, name, man))).toBe(true);
  }
  const { files } = JSON.parse(read('client/package.json')) as { files: string[] };
  expect(files).toContain('ERRORS.md');
});

/** What a call of test or describe, with or without `each` and `skipIf`, is given as its name. */
const namePattern = /(?:\b(?:test|describe)(?:\.\w+)*|\))\(\s*(['`])((?:(?!\1)[^\\]|\\.)*)\1/g;

/** The names of the tests in a cited file; undefined for a file that is not there. */
function testNamesIn(file: string): string[] | undefined {
  const path = ['test', 'test/integration'].map((folder) => join(repository, folder, file)).find((candidate) => existsSync(candidate));
  return path === undefined ? undefined : [...readFileSync(path, 'utf8').matchAll(namePattern)].map(([, , name = '']) => name);
}

/** What is wrong with what a row of SECURITY.md cites: a file and words of its tests' names, with semicolons between. */
function wrongCitations(cell: string): string[] {
  let [file, names]: [string, string[] | undefined] = ['', undefined];
  return cell.split('; ').flatMap((part) => {
    const [, cited, words = cited === undefined ? part : ''] = /^`([\w./-]+\.test\.ts)`(?:: (.+))?$/.exec(part) ?? [];
    if (cited !== undefined) [file, names] = [cited, testNamesIn(cited)];
    return names?.some((name) => name.includes(words)) ? [] : [`${file}: ${words}`];
  });
}

test('SECURITY.md: every promise cites tests that there are', () => {
  const promises = /## What is promised\n([\s\S]*?)\n## /.exec(read('daemon/SECURITY.md'))?.[1] ?? '';
  const cells = promises.split('\n').flatMap((row) => (row.startsWith('| ') ? [row.split(' | ').at(-1)?.replace(/ \|$/, '') ?? ''] : []));
  expect(cells.length).toBeGreaterThan(50);
  expect(cells.slice(1).flatMap(wrongCitations)).toEqual([]);
  expect(['`nothing.test.ts`', '`crash.test.ts`: a full disk; no such words', '`crash.test.ts`, `life.test.ts`'].flatMap(wrongCitations)).toHaveLength(3);
});
