import { AgentError, type ImportWrappingAlgorithm, type KeySpec, type KeyUsage } from '@kms-agent/protocol';
import type { Asker } from '../../caller/identity.ts';
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
  Refused,
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
import { Announcement } from './announcement.ts';
import { withAgentErrors } from './failures.ts';
import { TokenImport } from './import.ts';
import { KeyCalls } from './key-calls.ts';
import { TokenLink } from './link.ts';
import { type Failure, TokenFailure } from './messages.ts';
import { toNewKey, toRef } from './objects.ts';
import { TokenOperations } from './operations.ts';
import { TokenPins, type TokenPinsOptions } from './pins.ts';
import type { LinkState } from './recovery.ts';
import { Refusals } from './refusals.ts';
import { statusOf } from './status.ts';

/** What the provider needs of the agent around it. */
export interface TokenProviderOptions extends TokenPinsOptions {
  readonly onState: (state: LinkState, failure?: Failure) => void;
  /** Milliseconds since the epoch, for people. */
  readonly now: () => number;
}

/** Keys in a PKCS#11 token, by way of a helper process. Public keys are worked with here, in the agent. */
export class Pkcs11Provider implements Provider, TokenProvider, Encrypter, Signer, Importer {
  readonly kind = 'pkcs11';
  readonly #options: TokenProviderOptions;
  readonly #link: TokenLink;
  readonly #public = new PublicOperations();
  readonly #pins: TokenPins;
  readonly #keys: KeyCalls;
  readonly #refusals: Refusals;
  readonly #operations: TokenOperations;
  readonly #import: TokenImport;
  readonly #announcement: Announcement;
  #onReady: () => void = () => undefined;

  constructor(options: TokenProviderOptions) {
    this.#options = options;
    this.#pins = new TokenPins(options);
    this.#announcement = new Announcement(options.settings, options.onNote);
    this.#link = new TokenLink({
      settings: options.settings,
      pins: this.#pins,
      now: options.now,
      onState: (state, failure) => {
        options.onState(state, failure);
        if (state === 'ok') this.#greet();
      },
      onAbilities: (abilities) => this.#announcement.sayAbilities(abilities),
    });
    this.#refusals = new Refusals(this.name, options.onNote);
    this.#keys = new KeyCalls({
      token: this.name,
      refusals: this.#refusals,
      onNote: options.onNote,
      onFailed: (failure) => this.#link.noteFailed(failure),
    });
    this.#operations = new TokenOperations(this.#link, this.#keys, this.#public);
    this.#import = new TokenImport(this.#link, this.#keys);
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

  #greet(): void {
    const { info, abilities } = this.#link.connection;
    if (info) this.#announcement.sayUri(info);
    if (abilities) this.#announcement.sayAbilities(abilities);
    this.#onReady();
  }

  /** Begins to connect. @param onReady - hears of each time that the token is there. */
  begin(pins: PinBook, onReady: () => void): void {
    this.#pins.open(pins);
    this.#onReady = onReady;
    if (this.#link.state !== 'ok') this.#link.start();
    else if (this.#isOwn()) onReady();
    else void this.#link.stop().then(() => this.#onReady === onReady && this.#link.start()); // unless it was locked meanwhile
  }

  expect(serial: string | undefined): void {
    this.#pins.expect(serial);
  }

  /** Whether the token that was logged in to while the vault was locked is the one that the vault knows. */
  #isOwn(): boolean {
    const { info } = this.#link.connection;
    try {
      if (info) this.#pins.note(info);
      return true;
    } catch (error) {
      if (!(error instanceof TokenFailure)) throw error;
      return false;
    }
  }

  /** Connects with the PIN of a person, or the source's, and waits. @throws AgentError `ERR_HSM_PIN_WRONG`, `ERR_HSM_PIN_LOCKED`, `ERR_HSM_UNAVAILABLE`. */
  async logIn(pin: Uint8Array | undefined): Promise<void> {
    const kept = pin && Buffer.from(pin); // outside of the heap that a collection moves about
    try {
      await withAgentErrors(() => this.#link.logIn(pin));
      if (kept && this.#link.connection.hasTakenPin) await this.#pins.save(kept); // a token that others are logged in to may have taken it unread
    } finally {
      kept?.fill(0);
    }
  }

  async ready(): Promise<void> {
    this.#link.start();
    await withAgentErrors(async () => {
      await this.#link.ready();
      await this.#link.settleAbilities();
      await this.#link.ready(); // a probe may have cost the helper
    });
  }

  status(): ProviderStatus {
    return statusOf(this.#link, this.#options.settings);
  }

  isAvailable(keyVersionId: string): boolean {
    return (this.#link.state === 'ok' || this.#link.state === 'connecting') && !this.#keys.isUnavailable(keyVersionId);
  }

  markMissing(keyVersionId: string): void {
    this.#keys.markMissing(keyVersionId);
  }

  noteRefused(refused: Refused): void {
    const { abilities } = this.#link.connection;
    if (abilities) this.#refusals.noteRefused(refused, abilities);
  }

  markShown(keyVersionId: string): void {
    this.#keys.markShown(keyVersionId);
  }

  abilities(keySpec: KeySpec, keyUsage: KeyUsage): Abilities | undefined {
    const { abilities } = this.#link.connection;
    return abilities && offersOf(abilities, keySpec, keyUsage);
  }

  async generate(made: NewMaterial): Promise<GeneratedMaterial> {
    const { proof, publicKey } = await this.#keys.run(made.keyVersionId, () => this.#link.call('generate', { key: toNewKey(made) }));
    return { material: proof, ...(publicKey ? { publicKey } : {}) };
  }

  async publicKey({ publicKey }: MaterialRef): Promise<Uint8Array> {
    if (publicKey) return publicKey;
    throw new AgentError('ERR_UNSUPPORTED_OPERATION');
  }

  async encrypt(ref: MaterialRef, input: EncryptInput, asker?: Asker): Promise<EncryptOutput> {
    return await this.#operations.encrypt(ref, input, asker);
  }

  async decrypt(ref: MaterialRef, input: DecryptInput, asker?: Asker): Promise<Uint8Array> {
    return await this.#operations.decrypt(ref, input, asker);
  }

  async sign(ref: MaterialRef, input: SignInput, asker?: Asker): Promise<Uint8Array> {
    return await this.#operations.sign(ref, input, asker);
  }

  async verify(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    return await this.#public.verify(ref, input);
  }

  importAlgorithms(keySpec: KeySpec): readonly ImportWrappingAlgorithm[] {
    const { abilities } = this.#link.connection;
    return abilities ? importsOf(abilities, keySpec) : [];
  }

  async makeWrappingPair(input: WrappingPairInput): Promise<WrappingPair> {
    return await this.#import.makePair(input);
  }

  async dropWrappingPair(id: string): Promise<void> {
    await this.#import.dropPair(id);
  }

  async unwrap(made: NewMaterial, input: UnwrapInput): Promise<UnwrappedMaterial> {
    return await this.#import.unwrap(made, input);
  }

  async destroy(ref: MaterialRef): Promise<void> {
    this.#public.drop(ref.keyVersionId);
    if (ref.material.length > 0) await this.#keys.run(ref.keyVersionId, () => this.#link.call('destroy', { key: toRef(ref) }));
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
    this.#keys.clear();
    this.#pins.close();
    this.#onReady = () => undefined;
    await this.#link.stop();
  }

  async close(): Promise<void> {
    await this.lock();
  }
}
