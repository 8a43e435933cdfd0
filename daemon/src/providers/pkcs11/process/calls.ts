import { type CallName, type Calls, type TokenAbilities, TokenFailure } from '../messages.ts';
import { TokenCipher } from './cipher.ts';
import { CKM_AES_KEY_GEN, CKM_EC_KEY_PAIR_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN } from './cryptoki.ts';
import { MaterialImport } from './import.ts';
import { Keys, readPublicKey } from './keys.ts';
import { Listing } from './listing.ts';
import { loadModule, offerTokens } from './module.ts';
import type { PKCS11 } from './pkcs11js.ts';
import { Probe } from './probe.ts';
import { Prover } from './proof.ts';
import { aesTemplate, keyPairTemplates } from './template.ts';
import { Token } from './token.ts';

type Handlers = { readonly [C in CallName]: (params: Calls[C]['takes']) => Promise<Calls[C]['gives']> };

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

  readonly handlers: Handlers = {
    offer: async ({ module }) => {
      const library = await loadModule(module);
      return { library: library.C_GetInfo().libraryDescription.trim(), tokens: offerTokens(library) };
    },
    open: (params) => this.#openToken(params),
    recover: async ({ from }) => {
      const { token, keys } = this.#opened;
      keys.forgetAll();
      if (from === 'initialize') token.initialize();
      token.login(true);
      await token.check();
      return {};
    },
    check: async () => {
      await this.#opened.token.check();
      return {};
    },
    generate: ({ key }) => this.#inTurn(() => this.#generate(key)),
    encrypt: (params) => this.#opened.cipher.encrypt(params),
    decrypt: (params) => this.#opened.cipher.decrypt(params),
    sign: (params) => this.#opened.cipher.sign(params),
    destroy: ({ key }) => this.#inTurn(async () => ({ destroyed: await this.#opened.keys.destroy(key) })),
    list: ({ from }) => this.#opened.listing.page(from),
    makeWrappingPair: (params) => this.#inTurn(() => this.#opened.material.makePair(params)),
    dropWrappingPair: ({ id }) =>
      this.#inTurn(async () => {
        await this.#opened.material.dropPair(id);
        return {};
      }),
    unwrap: (params) => this.#inTurn(() => this.#opened.material.unwrap(params)),
  };

  get #opened(): Open {
    if (this.#open) return this.#open;
    throw new TokenFailure({ kind: 'fault', rv: 'no token is open', call: 'open' });
  }

  async #openToken({ module, match, pin, automatic, sessions, abilities }: Calls['open']['takes']): Promise<Calls['open']['gives']> {
    this.#library ??= await loadModule(module);
    const token = new Token(this.#library, match, { pin, sessions });
    pin?.fill(0);
    token.login(automatic);
    const known = abilities ?? (await new Probe(token).run());
    await token.check();
    this.#open = this.#build(token, known);
    return { token: token.info, abilities: known };
  }

  #build(token: Token, abilities: TokenAbilities): Open {
    const prover = new Prover(abilities);
    const keys = new Keys(token, prover, () => token.check());
    const material = new MaterialImport(token, prover, abilities);
    return { token, keys, prover, cipher: new TokenCipher(token, keys, abilities), material, listing: new Listing(token) };
  }

  async #generate(key: Calls['generate']['takes']['key']): Promise<Calls['generate']['gives']> {
    const { token, prover } = this.#opened;
    return await token.use(async (session) => {
      if (key.keySpec.startsWith('AES_')) {
        const handle = await session.generateKey(CKM_AES_KEY_GEN, aesTemplate(key));
        return { proof: await prover.make(session, handle, key) };
      }
      const { publicTemplate, privateTemplate } = keyPairTemplates(key);
      const mechanism = key.keySpec.startsWith('EC_') ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN;
      const pair = await session.generatePair(mechanism, publicTemplate, privateTemplate);
      return { proof: await prover.make(session, pair.privateKey, key), publicKey: readPublicKey(session, pair.publicKey, key.keySpec) };
    }, true);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // whoever called hears of it; the next in the turn does not care
    return result;
  }
}
