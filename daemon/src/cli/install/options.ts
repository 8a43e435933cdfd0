import { existsSync, realpathSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { Places } from '../../config.ts';
import type { CredentialKey } from '../../os/credential-store.ts';
import { installCommand } from './host.ts';
import { runSteps, type Step, type StepReport } from './step.ts';
import { userConfigHome } from './units.ts';

interface TargetOptions {
  readonly system?: boolean;
  readonly user?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

interface InstallOptions extends TargetOptions {
  readonly passphraseFd?: number;
  readonly withKey: CredentialKey;
  readonly credential: boolean;
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const words: Readonly<Record<StepReport['outcome'], string>> = { already: 'ok    ', done: 'done  ', would: 'would ', failed: 'FAILED' };

/** What a step shows, as a person reads it. */
function showResult({ recoveryCode, status }: Readonly<Record<string, string>>): void {
  if (recoveryCode !== undefined) say(`\nRecovery code, shown this once. Print it and keep it away from this machine:\n\n    ${recoveryCode}\n`);
  if (status !== undefined) say(`        the agent says: ${status}`);
}

/** Runs steps and tells of each as it ends; as JSON all together, those before a failure too. */
async function perform(steps: readonly Step[], { dryRun = false, json = false }: TargetOptions): Promise<StepReport[]> {
  const reports: StepReport[] = [];
  const onReport = (report: StepReport): void => {
    reports.push(report);
    if (json) return;
    say(`${words[report.outcome]}  ${report.name}: ${report.will}`);
    if (report.result) showResult(report.result);
  };
  try {
    await runSteps(steps, { dryRun, onReport });
  } catch (error) {
    if (json) say(JSON.stringify({ steps: reports }));
    throw error;
  }
  return reports;
}

/** @throws TypeError unless exactly one of the two is asked for. */
function isForSystem({ system = false, user = false }: TargetOptions): boolean {
  if (system === user) throw new TypeError('say for whom: --system (all of this host, as root) or --user (an agent of your own)');
  return system;
}

async function install({ passphraseFd, withKey, credential, ...options }: InstallOptions): Promise<void> {
  const system = isForSystem(options);
  const { notesOnSystem, systemInstallation, userInstallation } = await import('./install.ts');
  const vault = { ...(passphraseFd === undefined ? {} : { passphraseFd }), ...(credential ? { withKey } : {}) };
  const steps = await perform(system ? systemInstallation(vault) : await userInstallation(userConfigHome(), realpathSync(process.argv[1] ?? '')), options);
  const notes = system ? notesOnSystem(vault) : [];
  if (options.json) return say(JSON.stringify({ steps, ...(notes.length === 0 ? {} : { note: notes.join('\n') }) }));
  for (const note of notes) say(`\n${note}`);
  if (options.dryRun) return;
  if (system) say('\nWho may connect: usermod -a -G kms-users NAME. Then: kms status; systemctl status kms-agent');
  else say('\nNext: kms-agent init, if there is no vault yet; then kms unlock.');
}

async function uninstall(options: TargetOptions, places: Places): Promise<void> {
  const system = isForSystem(options);
  const { keptOfSystem, systemRemoval, userRemoval } = await import('./install.ts');
  const steps = await perform(system ? systemRemoval() : userRemoval(userConfigHome()), options);
  const kept = system ? keptOfSystem() : [places.dataDir, places.auditDir, places.configFile].filter((path) => existsSync(path));
  if (options.json) return say(JSON.stringify({ steps, kept }));
  if (kept.length > 0) say(`\nKept: ${kept.join(', ')}\nThe vault in them is all there is of its keys.`);
}

/** A command on the whole host or on a user's own agent. */
function targetCommand(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--system', 'for the whole host, as root')
    .option('--user', 'for an agent of your own')
    .option('--dry-run', 'only say what would be done')
    .option('--json', 'answer as JSON');
}

/** What sets up agents under systemd, and takes them away. */
export function addInstallCommands(program: Command, { places, parseFd }: { places: Places; parseFd: (text: string) => number }): void {
  targetCommand(program, 'install', 'set up an agent under systemd; what is done already stays as it is')
    .option('--passphrase-fd <n>', 'read the passphrase of the vault from this descriptor instead of the terminal', parseFd)
    .addOption(new Option('--with-key <key>', 'what the credential is encrypted with').choices(['auto', 'host', 'tpm2', 'host+tpm2']).default('auto'))
    .option('--no-credential', 'make no credential: a person unlocks after each start')
    .addHelpText('after', `\nExamples:\n  # ${installCommand} --dry-run\n  $ kms-agent install --user`)
    .action((options: InstallOptions) => install(options));
  targetCommand(program, 'uninstall', 'take the units and the program away again; the vault, the audit record and the settings stay')
    .addHelpText('after', '\nExample:\n  # kms-agent uninstall --system')
    .action((options: TargetOptions) => uninstall(options, places));
}
