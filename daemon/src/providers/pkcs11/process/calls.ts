import {
  type CallName,
  type Calls,
  isFullness,
  type LogInNotice,
  type MadeKey,
  type NewKey,
  type TokenAbilities,
  TokenFailure,
  type TryNotice,
} from '../messages.ts';
import { TokenCipher } from './cipher.ts';
import { CKM_AES_KEY_GEN, CKM_EC_KEY_PAIR_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN } from './cryptoki.ts';
import { MaterialImport } from './import.ts';
import { Judge } from './judge.ts';
import { Keys, readPublicKey } from './keys.ts';
import { Listing } from './listing.ts';
import { loadModule, offerTokens } from './module.ts';
import type { Handle, PKCS11 } from './pkcs11js.ts';
import { Probe } from './probe.ts';
import { Prover } from './proof.ts';
import type { Session } from './session.ts';
import { aesTemplate, keyPairTemplates } from './template.ts';
import { Token } from './token.ts';

type Handlers = { readonly [C in CallName]: (params: Calls[C]['takes']) => Promise<Calls[C]['gives']> };

/** Of a token that is not tried out yet. */
const untried: TokenAbilities = {
  aesBits: [],
  aes: [],
  rsaBits: [],
  oaep: {},
  rsaSigning: [],
  curves: [],
  unwraps: [],
  works: [],
  refused: [],
  doubtful: [],
};

/** An open token and what works on it. */
interface Open {
  readonly token: Token;
  readonly keys: Keys;
  readonly cipher: TokenCipher;
  readonly prover: Prover;
  readonly material: MaterialImport;
  readonly listing: Listing;
}

/** What the helper does for the agent. One module, one token. */
export class Helper {
  #library: PKCS11 | undefined;
  #open: Open | undefined;
  /** Modules break when keys are made, taken in or destroyed side by side (SoftHSMv2 573). */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #notify: (notice: LogInNotice | TryNotice) => Promise<void>;

  readonly handlers: Handlers = {
    offer: async ({ module }) => {
      const library = await loadModule(module);
      return { library: library.C_GetInfo().libraryDescription.trim(), tokens: offerTokens(library) };
    },
    open: (params) => this.#openToken(params),
    recover: async ({ from }) => {
      const { token, keys, listing } = this.#opened;
      keys.forgetAll();
      listing.forget();
      if (from === 'initialize') token.initialize();
      await token.login(true);
      await token.check();
      return {};
    },
    check: async () => {
      await this.#opened.token.check();
      return {};
    },
    probe: (params) => this.#inTurn(() => this.#probe(params)),
    generate: ({ key }) => this.#making(() => this.#generate(key)),
    encrypt: (params) => this.#opened.cipher.encrypt(params),
    decrypt: (params) => this.#opened.cipher.decrypt(params),
    judge: (params) => this.#opened.cipher.judge(params),
    sign: (params) => this.#opened.cipher.sign(params),
    prove: async ({ key }) => {
      await this.#opened.keys.prove(key);
      return {};
    },
    destroy: ({ key }) => this.#inTurn(async () => ({ destroyed: await this.#opened.keys.destroy(key) })),
    list: ({ from }) => this.#opened.listing.page(from),
    makeWrappingPair: (params) => this.#making(() => this.#opened.material.makePair(params)),
    dropWrappingPair: ({ id }) =>
      this.#inTurn(async () => {
        await this.#opened.material.dropPair(id);
        return {};
      }),
    unwrap: (params) => this.#making(() => this.#unwrap(params)),
  };

  /** @param notify - hears of it before a PIN is sent, once the token has answered, and before something is tried out. */
  constructor(notify: (notice: LogInNotice | TryNotice) => Promise<void>) {
    this.#notify = notify;
  }

  /** Sessions that the token has open, that of the login among them. */
  get openSessions(): number {
    return this.#open?.token.openSessions ?? 0;
  }

  get #opened(): Open {
    if (this.#open) return this.#open;
    throw new TokenFailure({ kind: 'fault', rv: 'no token is open', call: 'open' });
  }

  async #openToken({ module, match, serial, pin, automatic, sessions, abilities }: Calls['open']['takes']): Promise<Calls['open']['gives']> {
    this.#library ??= await loadModule(module);
    const token = new Token(this.#library, { match, serial }, { pin, sessions, onLogIn: this.#notify });
    pin?.fill(0);
    await token.login(automatic);
    await token.check();
    this.#open = this.#build(token, abilities ?? untried);
    return { token: token.info };
  }

  async #probe({ known, costly = [] }: Calls['probe']['takes']): Promise<Calls['probe']['gives']> {
    const { token, listing } = this.#opened;
    const abilities = await new Probe(token, known, { costly, onTry: (trying) => this.#notify({ trying }) }).run();
    this.#open = { ...this.#build(token, abilities), listing }; // its pages go on
    return { abilities };
  }

  #build(token: Token, abilities: TokenAbilities): Open {
    const prover = new Prover(abilities);
    const keys = new Keys(token, prover, () => token.check());
    const material = new MaterialImport(token, prover, abilities);
    return {
      token,
      keys,
      prover,
      cipher: new TokenCipher({ token, keys, judge: new Judge(token, keys, prover), abilities }),
      material,
      listing: new Listing(token),
    };
  }

  async #generate(key: NewKey): Promise<MadeKey> {
    const { token, prover } = this.#opened;
    return await token.use(async (session) => {
      const { objects, publicKey } = await generate(session, key);
      const made = await prover.makeProven(session, objects, key, publicKey);
      if (made) return made;
      for (const object of objects) session.destroy(object);
      throw new TokenFailure({ kind: 'failed', rv: 'a key that does not prove itself', call: 'C_GenerateKey' });
    }, true);
  }

  async #unwrap(params: Calls['unwrap']['takes']): Promise<Calls['unwrap']['gives']> {
    const { keys, material } = this.#opened;
    return await material.unwrap(params).finally(() => keys.forget(params.key.keyVersionId)); // what was there may have gone
  }

  /** A token that has no room for what is to be made, and is well, is full. */
  async #making<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.#inTurn(work);
    } catch (error) {
      if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault' || !isFullness(error.failure)) throw error;
      await this.#opened.token.check();
      throw new TokenFailure({ ...error.failure, kind: 'full' });
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // whoever called hears of it; the next in the turn does not care
    return result;
  }
}

/** Makes a key in the token: the object that works comes first. */
async function generate(session: Session, key: NewKey): Promise<{ objects: [Handle, ...Handle[]]; publicKey?: Uint8Array }> {
  if (key.keySpec.startsWith('AES_')) return { objects: [await session.generateKey(CKM_AES_KEY_GEN, aesTemplate(key))] };
  const { publicTemplate, privateTemplate } = keyPairTemplates(key);
  const mechanism = key.keySpec.startsWith('EC_') ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN;
  const pair = await session.generatePair(mechanism, publicTemplate, privateTemplate);
  return { objects: [pair.privateKey, pair.publicKey], publicKey: readPublicKey(session, pair.publicKey, key.keySpec) };
}
