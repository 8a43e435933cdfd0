import { type Failure, isAmbiguous, type OfferedToken, TokenFailure, type TokenInfo, type TokenMatch } from '../messages.ts';
import { fits } from '../uri.ts';
import {
  CKF_LOGIN_REQUIRED,
  CKF_OS_LOCKING_OK,
  CKF_USER_PIN_FINAL_TRY,
  CKF_USER_PIN_LOCKED,
  CKM_AES_CBC,
  CKM_AES_KEY_GEN,
  CKS_RW_USER_FUNCTIONS,
  CKU_USER,
  mechanismNames,
} from './cryptoki.ts';
import { aesMechanism } from './mechanism.ts';
import { type Handle, loadPkcs11js, type PKCS11, type TokenInfo as RawTokenInfo } from './pkcs11js.ts';
import { CKR_PIN_LOCKED, CKR_SESSION_COUNT, CKR_USER_ALREADY_LOGGED_IN, kindOfRv, nameOfRv, rvOf } from './rv.ts';
import { asFailure, Session } from './session.ts';
import { throwawayAes } from './template.ts';

const tokenInitialized = 0x400;

/** Loads pkcs11js, which a host without a compiler may lack, and a module into it. @throws TokenFailure of kind `load`. */
export async function loadModule(path: string): Promise<PKCS11> {
  const library = await loadPkcs11js().catch((cause: unknown) => {
    throw new TokenFailure({ kind: 'load', message: `the package pkcs11js cannot be loaded; install it with npm install pkcs11js (${String(cause)})` });
  });
  try {
    library.load(path);
    library.C_Initialize({ flags: CKF_OS_LOCKING_OK }); // calls come from several threads
  } catch (error) {
    const rv = rvOf(error);
    if (rv !== undefined && kindOfRv(rv) === 'fault') throw asFailure('C_Initialize', error);
    throw new TokenFailure({ kind: 'load', message: `the module does not start: ${rv === undefined ? String(error) : nameOfRv(rv)}` });
  }
  return library;
}

function describeToken({ label, serialNumber, manufacturerID, model, firmwareVersion: { major, minor } }: RawTokenInfo): TokenInfo {
  return {
    label: label.trim(),
    serial: serialNumber.trim(),
    manufacturer: manufacturerID.trim(),
    model: model.trim(),
    firmware: `${major}.${minor}`,
  };
}

/** All tokens of a module, with the mechanisms that matter here. */
export function offerTokens(library: PKCS11): OfferedToken[] {
  return library.C_GetSlotList(true).map((slot) => {
    const info = library.C_GetTokenInfo(slot);
    const mechanisms = library.C_GetMechanismList(slot).flatMap((mechanism) => mechanismNames[mechanism] ?? []);
    return { ...describeToken(info), initialized: (info.flags & tokenInitialized) !== 0, mechanisms };
  });
}

/** One token, logged in: its login session, held for ever, and a pool of others. */
export class Token {
  readonly info: TokenInfo;
  readonly #library: PKCS11;
  readonly #match: TokenMatch;
  readonly #pin: string | undefined;
  #slot: Handle;
  #login: Session | undefined;
  #idle: Session[] = [];
  #out = 0;
  #waiting: (() => void)[] = [];
  /** When a return value last meant that something is sick; what is ambiguous is judged by it. */
  lastFaultTime = Number.NEGATIVE_INFINITY;

  /** @throws TokenFailure of kind `noToken`. */
  constructor(library: PKCS11, match: TokenMatch, pin: Uint8Array | undefined) {
    this.#library = library;
    this.#match = match;
    this.#pin = pin && Buffer.from(pin).toString('utf8');
    [this.#slot, this.info] = this.#find();
  }

  /** Something is sick; what may as well be a bad ciphertext counts only when its judge says so. */
  readonly noteFault = (failure?: Failure): void => {
    if (!failure || !isAmbiguous(failure)) this.lastFaultTime = performance.now();
  };

  /**
   * Logs in with a session that stays open.
   * @param automatic - nobody asked: the last try of a PIN is left to a person.
   * @throws TokenFailure of kind `pin`.
   */
  login(automatic: boolean): void {
    const { flags } = this.#try('C_GetTokenInfo', () => this.#library.C_GetTokenInfo(this.#slot));
    const old = this.#login;
    const session = new Session(this.#library, this.#slot, this.noteFault);
    this.#closeIdle();
    if ((flags & CKF_LOGIN_REQUIRED) !== 0) this.#logIn(session, flags, automatic);
    this.#login = session;
    old?.close();
  }

  #logIn(session: Session, flags: number, automatic: boolean): void {
    if (this.#pin === undefined) throw new TokenFailure({ kind: 'pin', why: 'needed' });
    if ((flags & CKF_USER_PIN_LOCKED) !== 0) throw new TokenFailure({ kind: 'pin', why: 'locked' });
    if (automatic && (flags & CKF_USER_PIN_FINAL_TRY) !== 0) throw new TokenFailure({ kind: 'pin', why: 'finalTry' });
    try {
      this.#library.C_Login(session.handle, CKU_USER, this.#pin);
    } catch (error) {
      const rv = rvOf(error);
      if (rv === CKR_USER_ALREADY_LOGGED_IN) return; // login is the application's, not the session's
      session.close();
      if (rv !== undefined && kindOfRv(rv) === 'pin')
        throw new TokenFailure({ kind: 'pin', why: rv === CKR_PIN_LOCKED ? 'locked' : 'wrong', rv: nameOfRv(rv) });
      throw asFailure('C_Login', error);
    }
  }

  /** From C_Finalize on: only then is a token seen that went away and came back. Nothing may run meanwhile. */
  initialize(): void {
    this.#login = undefined;
    this.#idle = [];
    try {
      this.#library.C_Finalize();
    } catch (error) {
      if (rvOf(error) === undefined) throw error; // a module that cannot even do that is initialized all the same
    }
    this.#try('C_Initialize', () => this.#library.C_Initialize({ flags: CKF_OS_LOCKING_OK }));
    [this.#slot] = this.#find();
  }

  /** Whether the token is there, is the same, is logged in, and can do something. @throws TokenFailure of kind `fault`. */
  async check(): Promise<void> {
    const info = describeToken(this.#try('C_GetTokenInfo', () => this.#library.C_GetTokenInfo(this.#slot)));
    if (!fits(info, this.#match) || info.serial !== this.info.serial) throw new TokenFailure({ kind: 'fault', rv: 'another token', call: 'C_GetTokenInfo' });
    await this.use(async (session) => {
      const { state } = session.call('C_GetSessionInfo', (library, handle) => library.C_GetSessionInfo(handle));
      if (this.#pin !== undefined && state !== CKS_RW_USER_FUNCTIONS)
        throw new TokenFailure({ kind: 'fault', rv: 'CKR_USER_NOT_LOGGED_IN', call: 'C_GetSessionInfo' });
      if (!this.#probesWithAes) return void session.call('C_GenerateRandom', (library, handle) => library.C_GenerateRandom(handle, Buffer.alloc(16)));
      const probe = await session.generateKey(CKM_AES_KEY_GEN, throwawayAes());
      await session.encrypt(aesMechanism('AES_CBC', Buffer.alloc(16), Buffer.alloc(0)), probe, Buffer.alloc(16));
      session.destroy(probe);
    });
  }

  /** Whether AES with a session key can be the probe of a check. */
  get #probesWithAes(): boolean {
    return this.#library.C_GetMechanismList(this.#slot).includes(CKM_AES_CBC);
  }

  mechanisms(): number[] {
    return this.#library.C_GetMechanismList(this.#slot);
  }

  maxKeyBits(mechanism: number): number {
    return this.#try('C_GetMechanismInfo', () => this.#library.C_GetMechanismInfo(this.#slot, mechanism)).maxKeySize;
  }

  /**
   * Lends a session, alone, for a whole operation.
   * @param fresh - one that nobody used before.
   */
  async use<T>(work: (session: Session) => Promise<T> | T, fresh = false): Promise<T> {
    const session = await this.#take(fresh);
    this.#out += 1;
    try {
      return await work(session);
    } finally {
      this.#out -= 1;
      this.#giveBack(session);
    }
  }

  async #take(fresh: boolean): Promise<Session> {
    for (;;) {
      const idle = fresh ? undefined : this.#idle.pop();
      if (idle) return idle;
      try {
        return new Session(this.#library, this.#slot, this.noteFault);
      } catch (error) {
        const isFull = error instanceof TokenFailure && error.failure.kind === 'fault' && error.failure.rv === nameOfRv(CKR_SESSION_COUNT);
        if (!isFull || this.#out + this.#idle.length === 0) throw error;
        const spare = this.#idle.pop();
        if (spare) spare.close();
        else await new Promise<void>((resolve) => this.#waiting.push(resolve)); // the token has fewer sessions than the setting
      }
    }
  }

  #giveBack(session: Session): void {
    if (session.isPoisoned) session.close();
    else this.#idle.push(session);
    this.#waiting.shift()?.();
  }

  #closeIdle(): void {
    for (const session of this.#idle.splice(0)) session.close();
  }

  #find(): [Handle, TokenInfo] {
    const slots = this.#try('C_GetSlotList', () => this.#library.C_GetSlotList(true));
    const found = slots.flatMap((slot): [Handle, TokenInfo][] => {
      const info = this.#try('C_GetTokenInfo', () => this.#library.C_GetTokenInfo(slot));
      return (info.flags & tokenInitialized) !== 0 && fits(describeToken(info), this.#match) ? [[slot, describeToken(info)]] : [];
    });
    const [first] = found;
    if (!first || found.length > 1) throw new TokenFailure({ kind: 'noToken', found: found.length });
    return first;
  }

  #try<T>(call: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.noteFault();
      throw asFailure(call, error);
    }
  }
}
