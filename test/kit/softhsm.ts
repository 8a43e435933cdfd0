import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AgentClient } from '@kms-agent/client';
import { Pkcs11Provider, type TokenProviderOptions } from '../../daemon/src/providers/pkcs11/provider.ts';
import { defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { cleanEnv, initVault, passphrase, repository, TempFolder, TestAgent } from './agent.ts';
import { tokenOf } from './outcome.ts';

export const softHsmModule = '/usr/lib/softhsm/libsofthsm2.so';
export const pin = '12345678';
/** SoftHSM is a Debian package that the set-up installs, pkcs11js is compiled then; an ordinary user may lack either. */
export const hasSoftHsm = [softHsmModule, join(repository, 'node_modules/pkcs11js/build/Release/pkcs11.node')].every((path) => existsSync(path));

/** Tokens of SoftHSM in a folder of their own. */
export class SoftHsm {
  readonly folder: TempFolder;
  readonly env: NodeJS.ProcessEnv;

  constructor(folder: TempFolder) {
    this.folder = folder;
    const [conf, tokens] = [folder.join('softhsm.conf'), folder.join('tokens')];
    if (!existsSync(tokens)) mkdirSync(tokens);
    writeFileSync(conf, `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`);
    this.env = cleanEnv({ SOFTHSM2_CONF: conf });
  }

  initToken(label: string, itsPin: string = pin): void {
    execFileSync('softhsm2-util', ['--init-token', '--free', '--label', label, '--so-pin', '87654321', '--pin', itsPin], { env: this.env, stdio: 'pipe' });
  }

  /** Serial number of the only token. */
  serial(): string {
    const shown = execFileSync('softhsm2-util', ['--show-slots'], { env: this.env, stdio: 'pipe' }).toString();
    return /^\s*Serial number:\s*([0-9a-f]{16})\s*$/m.exec(shown)?.[1] ?? '';
  }

  /** What pkcs11-tool shows of all objects. It fails when one goes while it lists them, and is asked again. */
  objects(label: string, ...args: string[]): string {
    for (let left = 5; ; left -= 1) {
      try {
        return this.tool(label, '--list-objects', ...args);
      } catch (error) {
        if (left === 1) throw error;
      }
    }
  }

  /** Runs pkcs11-tool, logged in. */
  tool(label: string, ...args: string[]): string {
    const login = ['--module', softHsmModule, '--token-label', label, '--login', '--pin', pin];
    return execFileSync('pkcs11-tool', [...login, ...args], { env: this.env, stdio: 'pipe' }).toString();
  }
}

/** What the settings of a test say of a token. */
export type TokenOverrides = Record<string, unknown>;

/** What a rig is made of. */
export interface RigOptions {
  readonly labels?: readonly string[];
  readonly module?: string;
  readonly overrides?: TokenOverrides;
  readonly settings?: object;
  readonly env?: NodeJS.ProcessEnv;
}

/** An agent with tokens, unlocked, and what belongs to it. */
export class TokenRig implements AsyncDisposable {
  readonly folder: TempFolder;
  readonly hsm: SoftHsm;
  #settings: object;
  readonly #env: NodeJS.ProcessEnv;
  agent: TestAgent | undefined;
  /** Opens the vault without the cost of a passphrase. */
  recoveryCode = '';

  private constructor(folder: TempFolder, hsm: SoftHsm, settings: object, env: NodeJS.ProcessEnv) {
    this.folder = folder;
    this.hsm = hsm;
    this.#settings = settings;
    this.#env = env;
  }

  /** One token for each label; `hsm` is the first. PINs come as credentials unless an override says otherwise. */
  static async make({ labels = ['hsm'], module = softHsmModule, overrides = {}, settings = {}, env = {} }: RigOptions = {}): Promise<TokenRig> {
    const folder = new TempFolder();
    const hsm = new SoftHsm(folder);
    mkdirSync(folder.join('credentials'));
    writeFileSync(folder.join('credentials', 'hsm-pin'), pin, { mode: 0o600 });
    for (const label of labels) hsm.initToken(label);
    const tokens = labels.map((label) => ({ name: label, module, uri: `pkcs11:token=${label}`, pin: 'credential:hsm-pin', timeoutMs: 2000, ...overrides }));
    const all = { ...hsm.env, CREDENTIALS_DIRECTORY: folder.join('credentials'), ...env };
    const rig = new TokenRig(folder, hsm, { tokens, ...settings }, all);
    rig.recoveryCode = await initVault(folder);
    await rig.start();
    return rig;
  }

  get configFile(): string {
    return this.folder.join('config.json');
  }

  /** The token `hsm` by another URI, from the next start on. */
  setUri(uri: string): void {
    const { tokens = [] } = this.#settings as { tokens?: readonly object[] }; // as `make` wrote them
    this.#settings = { ...this.#settings, tokens: tokens.map((token) => ({ ...token, uri })) };
  }

  /** Other settings, from the next start on. */
  configure(settings: object): void {
    this.#settings = settings;
  }

  /** Starts the agent and unlocks it. */
  async start(unlock = true): Promise<TestAgent> {
    writeFileSync(this.configFile, JSON.stringify(this.#settings), { mode: 0o600 });
    const args = ['serve', '--config', this.configFile, '--data-dir', this.folder.join('vault'), '--socket', this.folder.join('agent.sock')];
    this.agent = await TestAgent.start(args, { env: this.#env });
    if (unlock) await (await this.agent.client()).unlock({ passphrase });
    return this.agent;
  }

  async restart(signal: NodeJS.Signals = 'SIGTERM', unlock = true): Promise<void> {
    await this.agent?.end(signal);
    await this.start(unlock);
  }

  /** Takes all tokens away, to where `showTokens` finds them. @param away - name of a folder. */
  hideTokens(away = 'away'): void {
    renameSync(this.folder.join('tokens'), this.folder.join(away));
  }

  showTokens(away = 'away'): void {
    renameSync(this.folder.join(away), this.folder.join('tokens'));
  }

  /** Puts another token of the same label in the place of all, which `hideTokens` takes away again. */
  replaceTokens(label = 'hsm', itsPin: string = pin): void {
    this.hideTokens();
    mkdirSync(this.folder.join('tokens'));
    this.hsm.initToken(label, itsPin);
  }

  async client(): Promise<AgentClient> {
    if (!this.agent) throw new Error('the agent is not started');
    return await this.agent.client();
  }

  /** What the agent wrote to its log. */
  get log(): string {
    return this.agent?.log ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent?.end();
    this.folder[Symbol.dispose]();
  }
}

/** Puts another key in the place of one, as somebody with the PIN and another program could. */
export function swapKey(rig: TokenRig, keyVersionId: string, type: 'AES:32' | 'EC:prime256v1'): void {
  const id = keyVersionId.replaceAll('-', '');
  const isSecret = type === 'AES:32';
  rig.hsm.tool('hsm', '--delete-object', '--type', isSecret ? 'secrkey' : 'privkey', '--id', id);
  if (!isSecret) rig.hsm.tool('hsm', '--delete-object', '--type', 'pubkey', '--id', id);
  rig.hsm.tool('hsm', isSecret ? '--keygen' : '--keypairgen', '--key-type', type, '--id', id, '--sensitive', ...(isSecret ? [] : ['--usage-sign']));
}

/** Ends the helper of a token at once. */
export async function killHelper(kms: AgentClient, token = 'hsm'): Promise<void> {
  process.kill((await tokenOf(kms, token))?.hsm?.helperPid ?? 0, 'SIGKILL');
}

/** A token, and a provider of its own, outside of an agent. */
export function makeTokenProvider(hsm: SoftHsm, label: string, overrides: Partial<TokenProviderOptions> = {}): Pkcs11Provider {
  hsm.initToken(label);
  process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF'];
  return new Pkcs11Provider({
    settings: { ...defaultTokenSettings, name: label, module: softHsmModule, uri: `pkcs11:token=${label}` },
    readPin: async () => Buffer.from(pin),
    savePin: async () => undefined,
    onState: () => undefined,
    onNote: (note) => console.log(note),
    now: Date.now,
    ...overrides,
  });
}
