import { createHash, randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, type CreateKeyParams, type GetParametersForImportResult, isAgentError, type KeyMetadata, utf8 } from '@kms-agent/client';
import { agentProgram, initVault, passphrase, run, TempFolder, TestAgent } from './agent.ts';
import { readAudit } from './audit-lines.ts';
import { wrapMaterial } from './material.ts';
import type { Secret } from './memory.ts';
import { privateNumbers, readVaultSecrets, type VaultSecrets } from './secrets.ts';
import { SoftHsm, softHsmModule } from './softhsm.ts';

/**
 * What must be seen of a secret while the agent is unlocked. `held`: it is found. `parsed`: as bytes and as limbs. `passing`: it is overwritten
 * as soon as it was used, and is not found. `dropped`: what held it waits for a collection, so it may be found or not.
 */
type Presence = 'held' | 'parsed' | 'passing' | 'dropped';

/** A secret, and what is expected of it. */
export interface Expected extends Secret {
  readonly before: Presence;
  /** Whether it must be gone when the agent is locked. */
  readonly promised: boolean;
}

const message = utf8('what somebody wants to keep to himself');
const digest = createHash('sha256').update(message).digest();
const checkpointMs = 100;

/** Tokens, by where their PINs come from. */
const pinSources = { asked: 'ask', kept: 'vault' } as const;
const tokens = Object.keys(pinSources) as (keyof typeof pinSources)[]; // its own keys

/** Long enough not to be found by chance. */
const makePin = (): string => randomBytes(18).toString('base64url');

/** A real agent that holds one of everything: keys of each kind, used and unused, tokens with PINs, an import, an audit record. */
export class Holder implements AsyncDisposable {
  readonly folder = new TempFolder();
  readonly #hsm = new SoftHsm(this.folder);
  readonly #pins = { asked: makePin(), kept: makePin() };
  readonly #keys = new Map<string, KeyMetadata>();
  readonly imported = randomBytes(32);
  #wakefulKeyId = '';
  #wrapping: GetParametersForImportResult | undefined;
  #dataKeys: Uint8Array[] = [];
  #agent: TestAgent | undefined;
  #client: AgentClient | undefined;

  /** Makes the vault and its keys in one agent, and ends it. */
  static async make(): Promise<Holder> {
    const holder = new Holder();
    for (const token of tokens) holder.#hsm.initToken(token, holder.#pins[token]);
    await initVault(holder.folder, '--no-default-key');
    await holder.start();
    await holder.kms.unlock({ passphrase });
    await holder.kms.unlock({ token: 'kept', pin: holder.#pins.kept });
    await holder.#makeKeys('unused');
    holder.#wakefulKeyId = (await holder.kms.createKey()).keyId;
    await holder.end();
    return holder;
  }

  get kms(): AgentClient {
    if (!this.#client) throw new Error('the agent is not started');
    return this.#client;
  }

  get pid(): number {
    return this.#agent?.child.pid ?? 0;
  }

  kill(signal: NodeJS.Signals): void {
    this.#agent?.child.kill(signal);
  }

  async start(settings: object = {}): Promise<void> {
    const tokensSetting = tokens.map((name) => ({ name, module: softHsmModule, uri: `pkcs11:token=${name}`, pin: pinSources[name] }));
    writeFileSync(this.folder.join('config.json'), JSON.stringify({ tokens: tokensSetting, auditCheckpointMs: checkpointMs, ...settings }), { mode: 0o600 });
    this.#agent = await TestAgent.serve(this.folder, '--config', this.folder.join('config.json'), { env: this.#hsm.env });
    this.#client = await this.#agent.client();
  }

  async end(): Promise<void> {
    await this.#agent?.end();
  }

  /** Makes keys that are used, here, and imports material. */
  async makeUsedKeys(): Promise<void> {
    await this.#makeKeys('used');
    const { keyId } = this.#key('used AES_256');
    await this.kms.createKeyVersion({ keyId });
    this.#keys.set('used AES_256, second version', await this.kms.describeKey({ keyId }));
    this.#keys.set('imported', await this.kms.createKey({ origin: 'EXTERNAL', aliasName: 'alias/default' }));
    await this.importMaterial();
  }

  async importMaterial(): Promise<void> {
    const { keyId } = this.#key('imported');
    this.#wrapping = await this.kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
    const { importToken, publicKey } = this.#wrapping;
    await this.kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, this.imported) });
    await this.kms.encrypt({ keyId, plaintext: message });
  }

  async deleteMaterial(): Promise<void> {
    await this.kms.deleteKeyMaterial({ keyId: this.#key('imported').keyId });
  }

  /** Makes keys of each kind that can be used for so long after an unlock, uses them, and answers what must be gone when that is over. */
  async useLimitedKeys(unlockLifetime: string): Promise<Secret[]> {
    const make = async (params: CreateKeyParams): Promise<KeyMetadata> => await this.kms.createKey({ ...params, unlockLifetime });
    const encrypting = [await make({}), await make({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' })];
    const signing = [await make({ keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' }), await make({ keySpec: 'EC_P256' }), await make({ keySpec: 'EC_P256K' })];
    const [aes] = encrypting;
    if (aes) await this.kms.createKeyVersion({ keyId: aes.keyId });
    await this.kms.unlock({ passphrase }); // what was made opens what was boxed
    for (const { keyId } of encrypting) await this.kms.decrypt(await this.kms.encrypt({ keyId, plaintext: message }));
    if (aes) await this.kms.advanceEncrypt({ keyId: aes.keyId, plaintext: message });
    for (const key of signing) await this.#sign(key);
    const vault = await this.#readVault();
    const keys = [...encrypting, ...signing];
    const versions = await Promise.all(keys.map(async ({ keyId }) => (await this.kms.listKeyVersions({ keyId })).keyVersions));
    const material = versions.flat().map(({ keyVersionId }) => vault.material.get(keyVersionId) ?? Buffer.alloc(0));
    return [
      { name: 'root key', bytes: vault.rootKey },
      { name: 'derived key: boxes', bytes: vault.derive('boxes') },
      ...vault.wrappingKeys.map((bytes, at) => ({ name: `wrapping key ${at}`, bytes })),
      ...material.flatMap((bytes, at) =>
        bytes.length === 32
          ? [{ name: `AES ${at}`, bytes }]
          : [...privateNumbers(bytes)].map(([number, its]) => ({ name: `private ${at}: ${number}`, bytes: its })),
      ),
    ];
  }

  /** How many keys have come to the end of their unlockLifetime. */
  get drops(): number {
    return readAudit(this.folder.join('vault', 'audit')).filter(({ operation }) => operation === 'drop').length;
  }

  /** Keeps an agent that locks itself when it is idle from doing so, until it is disposed. */
  stayAwake(): Disposable {
    const ask = async (): Promise<unknown> => await this.kms.generateDataKeyWithoutPlaintext({ keyId: this.#wakefulKeyId });
    let isOver = false;
    const ignore = (error: unknown): void => {
      if (!isOver) ignoreLocked(error); // one that is on its way may end with the connection
    };
    const timer = setInterval(() => void ask().catch(ignore), 500);
    return {
      [Symbol.dispose]: () => {
        isOver = true;
        clearInterval(timer);
      },
    };
  }

  /** Unlocks the vault and the tokens. */
  async unlock(): Promise<void> {
    await this.kms.unlock({ passphrase });
    await this.kms.unlock({ token: 'asked', pin: this.#pins.asked });
  }

  /** Uses every key that is to be used. */
  async use(): Promise<void> {
    for (const token of tokens) await this.kms.createKey({ protectionLevel: 'HSM', token });
    await this.#useSymmetric();
    for (const spec of ['RSA_2048 signing', 'EC_P256', 'EC_P256K']) await this.#sign(this.#key(`used ${spec}`));
    const { keyId } = this.#key('used RSA_2048 encrypting');
    const sealed = await this.kms.encrypt({ keyId, plaintext: message });
    await this.kms.decrypt(sealed);
    await delay(3 * checkpointMs); // the record of all this is keyed
  }

  /** Everything that must not be found when the agent is locked, and what is only counted. */
  async secrets(): Promise<Expected[]> {
    const vault = await this.#readVault();
    const keys = [...this.#keys].flatMap(([name, key]) => expectMaterial(name, vault.material.get(key.primaryKeyVersionId) ?? Buffer.alloc(0)));
    const pins = tokens.map((token) => expect(`PIN of a token, ${pinSources[token]}`, 'held', Buffer.from(this.#pins[token])));
    return [...expectVault(vault), ...keys, ...this.#expectWrappingPair(vault), ...pins, ...this.#expectUnpromised(vault)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    this.folder[Symbol.dispose]();
  }

  async #readVault(): Promise<VaultSecrets> {
    const file = this.folder.join('backup.db');
    rmSync(file, { force: true });
    const { code, stderr } = await run(agentProgram, ['backup', file, '--data-dir', this.folder.join('vault')]);
    if (code !== 0) throw new Error(stderr);
    return await readVaultSecrets(file, passphrase);
  }

  #key(name: string): KeyMetadata {
    const key = this.#keys.get(name);
    if (!key) throw new Error(`there is no key ${name}`);
    return key;
  }

  async #makeKeys(use: 'used' | 'unused'): Promise<void> {
    this.#keys.set(`${use} AES_256`, await this.kms.createKey());
    this.#keys.set(`${use} RSA_2048 signing`, await this.kms.createKey({ keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' }));
    this.#keys.set(`${use} RSA_2048 encrypting`, await this.kms.createKey({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' }));
    for (const keySpec of ['EC_P256', 'EC_P256K'] as const) this.#keys.set(`${use} ${keySpec}`, await this.kms.createKey({ keySpec }));
  }

  async #useSymmetric(): Promise<void> {
    for (const { keyId } of [this.#key('used AES_256'), this.#key('imported')]) {
      await this.kms.decrypt(await this.kms.encrypt({ keyId, plaintext: message }));
      const { ciphertextBlob } = await this.kms.advanceEncrypt({ keyId, plaintext: message });
      await this.kms.advanceDecrypt({ ciphertextBlob });
      await this.kms.reEncrypt({ ciphertextBlob, destinationKeyId: keyId });
      await this.kms.generateDataKeyWithoutPlaintext({ keyId });
      this.#dataKeys.push((await this.kms.generateDataKey({ keyId })).plaintext, (await this.kms.advanceGenerateDataKey({ keyId })).plaintext);
    }
  }

  async #sign({ keyId }: KeyMetadata): Promise<void> {
    await this.kms.assertValidSignature({ ...(await this.kms.sign({ keyId, message })), message });
    await this.kms.sign({ keyId, message: digest, messageType: 'DIGEST' });
  }

  /** It lives sealed in its import token, and in the agent for as long as two calls take. */
  #expectWrappingPair(vault: VaultSecrets): Expected[] {
    if (!this.#wrapping) return [];
    const note = vault.unseal('import token', `kms-agent import token 1 ${this.#key('imported').keyId}`, this.#wrapping.importToken);
    const numbers = privateNumbers(note.subarray(2 + note.readUInt16BE()));
    return [...numbers].map(([number, bytes]) => expect(`wrapping pair of an import: ${number}`, 'dropped', bytes));
  }

  #expectUnpromised(vault: VaultSecrets): Expected[] {
    return [
      ...this.#dataKeys.map((bytes) => count('data keys that were answered', bytes)),
      count('the passphrase', Buffer.from(passphrase)),
      count('plaintext that was encrypted', message),
      count('audit key of the next checkpoint', vault.nextAuditKey),
    ];
  }
}

/** An agent that is not unlocked yet has nothing to be kept awake for. */
function ignoreLocked(error: unknown): void {
  if (!isAgentError(error, 'ERR_AGENT_LOCKED')) throw error;
}

const expect = (name: string, before: Presence, bytes: Uint8Array): Expected => ({ name, before, bytes, promised: true });
const count = (name: string, bytes: Uint8Array): Expected => ({ name, before: 'dropped', bytes, promised: false });

function expectMaterial(name: string, material: Buffer): Expected[] {
  if (material.length === 32) return [expect(name, 'held', material)];
  const presence = name.startsWith('used') ? 'parsed' : 'held';
  return [...privateNumbers(material)].map(([number, bytes]) => expect(`${name}: ${number}`, presence, bytes));
}

function expectVault(vault: VaultSecrets): Expected[] {
  return [
    expect('root key', 'dropped', vault.rootKey),
    expect('derived key: boxes', 'dropped', vault.derive('boxes')),
    expect('derived key: records', 'held', vault.recordsKey),
    expect('derived key: head', 'held', vault.headSealingKey),
    expect('derived key: head sums', 'held', vault.headSumsKey),
    ...['import token', 'import check value', 'page token'].map((purpose) => expect(`derived key: ${purpose}`, 'held', vault.derive(purpose))),
    ...vault.wrappingKeys.map((key) => expect('wrapping keys of keys with an unlockLifetime', 'held', key)),
    ...vault.sealKeys.map((key) => expect('keys of the seals of records', 'dropped', key)),
    expect('wrapping key of the passphrase keyslot', 'passing', vault.wrappingKey),
    ...vault.pastAuditKeys.map((key) => expect('audit keys of checkpoints that were made', 'passing', key)),
  ];
}
