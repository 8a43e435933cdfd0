import { createHash } from 'node:crypto';
import { AgentError, type ImportWrappingAlgorithm, type KeySpec, type KeyUsage } from '@kms-agent/protocol';
import type {
  Abilities,
  DecryptInput,
  Encrypter,
  EncryptInput,
  EncryptOutput,
  GeneratedMaterial,
  Importer,
  ListedKey,
  MaterialRef,
  NewMaterial,
  PinBook,
  Provider,
  ProviderStatus,
  Signer,
  SignInput,
  TokenProvider,
  UnwrapInput,
  UnwrappedMaterial,
  VerifyInput,
  WrappingPair,
  WrappingPairInput,
} from '../provider.ts';
import { PublicOperations } from '../software/public-operations.ts';
import { importsOf, offersOf } from './abilities.ts';
import { withAgentErrors } from './failures.ts';
import { type LinkState, TokenLink } from './link.ts';
import { describeFailure, type Failure, type KeyRef, type NewKey, TokenFailure } from './messages.ts';
import { decodePrevious, encodePrevious } from './previous.ts';
import { matchOf, type TokenSettings } from './settings.ts';
import { formatSignature } from './signature-format.ts';
import { statusOf } from './status.ts';
import { formatTokenUri } from './uri.ts';

/** What the provider needs of the agent around it. */
export interface TokenProviderOptions {
  readonly settings: TokenSettings;
  /** A PIN that lies outside of the vault: in the OS keychain or a credential. */
  readonly readPin: (settings: TokenSettings) => Promise<Uint8Array | undefined>;
  /** Keeps a PIN that the token took, where its source lies outside of the vault. */
  readonly savePin: (settings: TokenSettings, pin: Uint8Array) => Promise<void>;
  readonly onState: (state: LinkState, failure?: Failure) => void;
  /** Hears of what the log should say. */
  readonly onNote: (note: string, level: 'warn' | 'info') => void;
}

const blockBytes = 16;
/** Times that a key which proves itself is asked for a signature that verifies. */
const signTries = 2;

function toRef({ keyVersionId, keySpec, material, publicKey }: MaterialRef): KeyRef {
  if (material.length === 0) throw new AgentError('ERR_INTERNAL', {}, { cause: new TypeError('the material was destroyed') });
  return { keyVersionId, keySpec, proof: material, ...(publicKey ? { publicKey } : {}) };
}

/** CKA_LABEL that a person can read in other tools. */
const labelOf = ({ keyId, keySpec }: NewMaterial): string => `kms-agent ${keySpec} ${keyId}`;

const toNewKey = (made: NewMaterial): NewKey => ({ keyVersionId: made.keyVersionId, keySpec: made.keySpec, keyUsage: made.keyUsage, label: labelOf(made) });

/** Keys in a PKCS#11 token, by way of a helper process. Public keys are worked with here, in the agent. */
export class Pkcs11Provider implements Provider, TokenProvider, Encrypter, Signer, Importer {
  readonly kind = 'pkcs11';
  readonly #options: TokenProviderOptions;
  readonly #link: TokenLink;
  readonly #public = new PublicOperations();
  /** Versions whose object was last missing, doubled or another one. */
  readonly #unavailable = new Map<string, Extract<Failure, { kind: 'key' }>['why']>();
  #isAnnounced = false;
  #pins: PinBook | undefined;
  #onReady: () => void = () => undefined;

  constructor(options: TokenProviderOptions) {
    this.#options = options;
    this.#link = new TokenLink({
      settings: options.settings,
      readPin: () => this.#readPin(),
      onState: (state, failure) => {
        options.onState(state, failure);
        if (state === 'ok') this.#announce();
        if (state === 'ok') this.#onReady();
      },
    });
  }

  get name(): string {
    return this.#options.settings.name;
  }

  get keepsPinInVault(): boolean {
    return this.#options.settings.pin === 'vault';
  }

  get isAsleep(): boolean {
    return this.#link.state === 'stopped';
  }

  /** Begins to connect. @param onReady - hears of each time that the token is there. */
  begin(pins: PinBook, onReady: () => void): void {
    this.#pins = pins;
    this.#onReady = onReady;
    if (this.#link.state === 'ok') onReady();
    else this.#link.start();
  }

  /** Connects with the PIN of a person, or the source's, and waits. @throws AgentError `ERR_HSM_PIN_WRONG`, `ERR_HSM_PIN_LOCKED`, `ERR_HSM_UNAVAILABLE`. */
  async logIn(pin: Uint8Array | undefined): Promise<void> {
    const kept = pin && Buffer.from(pin); // outside of the heap that a collection moves about
    try {
      await withAgentErrors(() => this.#link.logIn(pin));
      if (kept) await this.#savePin(kept);
    } finally {
      kept?.fill(0);
    }
  }

  async ready(): Promise<void> {
    this.#link.start();
    await withAgentErrors(async () => {
      await this.#link.ready();
      await this.#link.abilityCheck.settle();
    });
  }

  status(): ProviderStatus {
    return statusOf(this.#link, this.#options.settings);
  }

  isAvailable(keyVersionId: string): boolean {
    return (this.#link.state === 'ok' || this.#link.state === 'connecting') && !this.#unavailable.has(keyVersionId);
  }

  markMissing(keyVersionId: string): void {
    this.#unavailable.set(keyVersionId, 'missing');
  }

  /** One that was another key is not mended by being there. */
  markShown(keyVersionId: string): void {
    if (this.#unavailable.get(keyVersionId) === 'missing') this.#unavailable.delete(keyVersionId);
  }

  abilities(keySpec: KeySpec, keyUsage: KeyUsage): Abilities | undefined {
    const { abilities } = this.#link.connection;
    return abilities && offersOf(abilities, keySpec, keyUsage);
  }

  async generate(made: NewMaterial): Promise<GeneratedMaterial> {
    const { proof, publicKey } = await this.#withToken(made.keyVersionId, () => this.#link.call('generate', { key: toNewKey(made) }));
    return { material: proof, ...(publicKey ? { publicKey } : {}) };
  }

  async publicKey({ publicKey }: MaterialRef): Promise<Uint8Array> {
    if (publicKey) return publicKey;
    throw new AgentError('ERR_UNSUPPORTED_OPERATION');
  }

  async encrypt(ref: MaterialRef, input: EncryptInput): Promise<EncryptOutput> {
    const { algorithm, plaintext } = input;
    if (algorithm.startsWith('RSAES_')) return await this.#public.encrypt(ref, input);
    if (input.paddingMode === 'NO_PADDING' && (plaintext.length === 0 || plaintext.length % blockBytes !== 0))
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/plaintext', reason: 'must be a multiple of 16 bytes with NO_PADDING' });
    return await this.#withToken(ref.keyVersionId, () => this.#link.call('encrypt', { key: toRef(ref), ...input }));
  }

  async decrypt(ref: MaterialRef, input: DecryptInput): Promise<Uint8Array> {
    const params = { key: toRef(ref), ...input };
    return await this.#withToken(ref.keyVersionId, async () => {
      try {
        return (await this.#link.call('decrypt', params)).plaintext;
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'doubtful') throw error;
        return (await this.#link.call('judge', params)).plaintext;
      }
    });
  }

  /** Each signature is verified: one that is not the key's is another's, or a fault's, which with RSA may give the key away. Nobody gets it. */
  async sign(ref: MaterialRef, input: SignInput): Promise<Uint8Array> {
    const { algorithm, message, messageType, signatureFormat } = input;
    const digest = messageType === 'DIGEST' ? message : createHash('sha256').update(message).digest();
    const key = toRef(ref);
    const asTokensGiveIt = algorithm === 'ECDSA_SHA_256' ? ({ signatureFormat: 'P1363' } as const) : {};
    return await this.#withToken(ref.keyVersionId, async () => {
      for (let left = signTries; left > 0; left -= 1) {
        const { signature } = await this.#link.call('sign', { key, algorithm, digest });
        if (await this.#public.verify(ref, { ...input, signature, ...asTokensGiveIt })) return formatSignature(signature, algorithm, signatureFormat);
        await this.#link.call('prove', { key });
      }
      throw new TokenFailure({ kind: 'failed', rv: 'a signature that does not verify', call: 'C_Sign' });
    });
  }

  async verify(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    return await this.#public.verify(ref, input);
  }

  importAlgorithms(keySpec: KeySpec): readonly ImportWrappingAlgorithm[] {
    const { abilities } = this.#link.connection;
    return abilities ? importsOf(abilities, keySpec) : [];
  }

  async makeWrappingPair({ id, keySpec, algorithm, label }: WrappingPairInput): Promise<WrappingPair> {
    const params = { id, bits: Number(keySpec.slice('RSA_'.length)), label, inToken: this.#unwrapsInToken(algorithm) };
    const { publicKey } = await this.#withToken(id, () => this.#link.call('makeWrappingPair', params));
    return { publicKey, state: Buffer.from(id) };
  }

  async dropWrappingPair(id: string): Promise<void> {
    await this.#withToken(id, () => this.#link.call('dropWrappingPair', { id }));
  }

  async unwrap(made: NewMaterial, { algorithm, state, wrapped, previous, hasMaterial }: UnwrapInput): Promise<UnwrappedMaterial> {
    const inToken = this.#unwrapsInToken(algorithm);
    const params = {
      key: toNewKey(made),
      wrappingId: Buffer.from(state).toString(),
      algorithm,
      wrapped,
      inToken,
      hasMaterial,
      ...(previous ? { previous: decodePrevious(previous) } : {}),
    };
    const { proof, publicKey, adopted } = await this.#withToken(made.keyVersionId, () => this.#link.call('unwrap', params), 'ERR_INVALID_KEY_MATERIAL');
    if (adopted) this.#options.onNote(`the token ${this.name} had the imported key ${made.keyVersionId} already; it is used as it is`, 'warn');
    this.#unavailable.delete(made.keyVersionId);
    const material = { material: proof, ...(publicKey ? { publicKey } : {}) };
    return { ...material, unwrappedIn: inToken ? 'TOKEN' : 'AGENT', checkValue: encodePrevious(material) };
  }

  async destroy(ref: MaterialRef): Promise<void> {
    this.#public.drop(ref.keyVersionId);
    if (ref.material.length > 0) await this.#withToken(ref.keyVersionId, () => this.#link.call('destroy', { key: toRef(ref) }));
  }

  async list(): Promise<readonly ListedKey[]> {
    const all: ListedKey[] = [];
    for (let from: number | undefined = 0; from !== undefined; ) {
      const at: number = from;
      const page = await withAgentErrors(() => this.#link.call('list', { from: at }));
      all.push(...page.objects);
      from = page.next;
    }
    return all;
  }

  async lock(): Promise<void> {
    this.#public.clear();
    this.#unavailable.clear();
    this.#pins = undefined;
    this.#onReady = () => undefined;
    await this.#link.stop();
  }

  async close(): Promise<void> {
    await this.lock();
  }

  /** A URI by label alone, and what a token lists and does not do, are said once: later it is ERR_UNSUPPORTED_ALGORITHM, which names no mechanism. */
  #announce(): void {
    if (this.#isAnnounced) return;
    this.#isAnnounced = true;
    const { info } = this.#link.connection;
    if (info && matchOf(this.#options.settings).serial === undefined)
      this.#options.onNote(
        `the URI of the token ${this.name} names no serial number, so that a token of the same label could be sent its PIN; set it to ${formatTokenUri(info)}`,
        'warn',
      );
    for (const refused of this.#link.connection.abilities?.refused ?? []) this.#options.onNote(`the token ${this.name} does not offer ${refused}`, 'info');
  }

  #unwrapsInToken(algorithm: ImportWrappingAlgorithm): boolean {
    return this.#link.connection.abilities?.unwraps.includes(algorithm) ?? false;
  }

  async #readPin(): Promise<Uint8Array | undefined> {
    const { settings, readPin } = this.#options;
    return settings.pin === 'vault' ? this.#pins?.read(settings.name) : await readPin(settings);
  }

  /** The token is logged in: a PIN that cannot be kept is asked for again next time, and the log says so. */
  async #savePin(pin: Uint8Array): Promise<void> {
    const { settings, savePin, onNote } = this.#options;
    try {
      if (settings.pin === 'vault') this.#pins?.save(this.name, pin);
      else await savePin(settings, pin);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      onNote(`the PIN of the token ${this.name} could not be kept: ${error.details.hint ?? error.message}`, 'warn');
    }
  }

  /** Remembers which key was not what it should be, so that its state can say so. */
  async #withToken<T>(
    keyVersionId: string,
    work: () => Promise<T>,
    invalid: 'ERR_INVALID_CIPHERTEXT' | 'ERR_INVALID_KEY_MATERIAL' = 'ERR_INVALID_CIPHERTEXT',
  ): Promise<T> {
    try {
      const result = await withAgentErrors(work);
      this.#unavailable.delete(keyVersionId);
      return result;
    } catch (error) {
      const failure = error instanceof AgentError && error.cause instanceof TokenFailure ? error.cause.failure : undefined;
      if (failure?.kind === 'key') this.#unavailable.set(keyVersionId, failure.why);
      if (failure?.kind === 'failed') this.#options.onNote(`the token ${this.name} failed: ${describeFailure(failure)}`, 'warn');
      throw failure?.kind === 'invalid' ? new AgentError(invalid) : error;
    }
  }
}
