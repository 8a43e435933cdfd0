import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { listFiles, type PlannedFile, planPackages } from './packages.ts';
import { findForeign, walkTree } from './root-only.ts';
import { plainStep, type Step } from './step.ts';
import { checkTrusted, checkTrustedFile } from './trust.ts';

/** Where the system's agent lives, with its own Node: only root can write it, and no update of another package changes it. */
export const treeFolder = '/usr/lib/kms-agent';

const nodeTarget = join('bin', 'node');

/** Node and the program, as units and commands run them. */
export const treeNode = join(treeFolder, nodeTarget);
export const treeProgram = join(treeFolder, 'node_modules/@kms-agent/daemon/bin/kms-agent.js');
const treeClient = join(treeFolder, 'node_modules/@kms-agent/client/bin/kms.js');

const wrapper = (program: string): string => `#!/bin/sh\nexec ${treeNode} ${program} "$@"\n`;

/** Programs of the tree that people call. */
const wrappers: Readonly<Record<string, string>> = { 'kms-agent': wrapper(treeProgram), kms: wrapper(treeClient) };

/** What is to be in the tree. */
interface TreePlan {
  readonly files: readonly PlannedFile[];
  /** Text of each small program, by its path in the tree. */
  readonly texts: ReadonlyMap<string, string>;
}

function planTree(): TreePlan {
  const packages = planPackages();
  const hasClient = packages.some(({ target }) => target.endsWith('@kms-agent/client'));
  const names = Object.keys(wrappers).filter((name) => name !== 'kms' || hasClient);
  return {
    files: [{ source: process.execPath, target: nodeTarget }, ...listFiles(packages)],
    texts: new Map(names.map((name) => [join('bin', name), wrappers[name] ?? ''])),
  };
}

/** @throws AgentError `ERR_STATE_CONFLICT` for a file that others than root can write: whoever can would run as the agent. */
function checkSources(files: readonly PlannedFile[]): void {
  for (const folder of new Set(files.map(({ source }) => dirname(source)))) checkTrusted(folder);
  for (const { source } of files) checkTrustedFile(source);
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Nobody but root can read Node: the kernel lets nobody else open the memory of what runs it, from execve(2) on. */
const nodeMode = 0o711;
const isNodeShut = (tree: string): boolean => ((statSync(join(tree, nodeTarget), { throwIfNoEntry: false })?.mode ?? 0) & 0o777) === nodeMode;

/** Whether the tree holds exactly the planned files, byte for byte, and nobody but root can change one: the bytes alone are those of now. */
function isSame(tree: string, { files, texts }: TreePlan): boolean {
  if (!existsSync(tree) || findForeign(walkTree(tree)) !== undefined) return false;
  const there = readdirSync(tree, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory()).length;
  if (there !== files.length + texts.size || !isNodeShut(tree)) return false;
  const isCopied = ({ source, target }: PlannedFile): boolean => {
    const path = join(tree, target);
    return path === source || (existsSync(path) && digest(readFileSync(path)) === digest(readFileSync(source)));
  };
  const isWritten = ([target, text]: readonly [string, string]): boolean => existsSync(join(tree, target)) && readFileSync(join(tree, target), 'utf8') === text;
  return files.every(isCopied) && [...texts].every(isWritten);
}

const executable = 0o111;

/** Makes folders that all can read, whatever the mask of this process. */
function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path);
  chmodSync(path, 0o755);
}

function build(tree: string, { files, texts }: TreePlan): void {
  for (const { source, target } of files) {
    const path = join(tree, target);
    makeFolder(dirname(path));
    copyFileSync(source, path);
    if (target === nodeTarget) chmodSync(path, nodeMode);
    else chmodSync(path, (statSync(source).mode & executable) === 0 ? 0o644 : 0o755);
  }
  for (const [target, text] of texts) {
    makeFolder(dirname(join(tree, target)));
    writeFileSync(join(tree, target), text);
    chmodSync(join(tree, target), 0o755);
  }
}

/** Builds the tree aside and puts it in place whole: an agent that runs keeps the files that it has open. */
function replaceTree(plan: TreePlan): void {
  const [fresh, old] = [`${treeFolder}.new`, `${treeFolder}.old`];
  for (const left of [fresh, old]) rmSync(left, { recursive: true, force: true });
  build(fresh, plan);
  if (existsSync(treeFolder)) renameSync(treeFolder, old);
  renameSync(fresh, treeFolder);
  rmSync(old, { recursive: true, force: true });
}

/** The program with its own Node. @throws AgentError `ERR_STATE_CONFLICT` where others than root can write what is copied, or where it goes. @param check - throws for what stops a later step: the program is not replaced then. */
export function treeStep(check: () => Promise<void> | void): Step {
  let plan: TreePlan | undefined;
  return plainStep(
    'program',
    `copy the program and its own Node ${process.versions.node} to ${treeFolder}, which only root can write`,
    async () => {
      plan = planTree();
      checkSources(plan.files);
      checkTrusted(dirname(treeFolder)); // the tree itself is replaced whole where others can change it, its top too
      await check();
      return isSame(treeFolder, plan);
    },
    () => replaceTree(plan ?? planTree()),
  );
}

/** Whether the client and its command line are part of the tree. */
export const hasClient = (): boolean => planTree().texts.has(join('bin', 'kms'));
