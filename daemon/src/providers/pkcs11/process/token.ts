import { type Failure, isAmbiguous, isFullness, type LogInNotice, TokenFailure, type TokenInfo, type TokenMatch } from '../messages.ts';
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
} from './cryptoki.ts';
import { aesMechanism } from './mechanism.ts';
import { describeToken, findToken } from './module.ts';
import type { Handle, PKCS11 } from './pkcs11js.ts';
import { SessionPool } from './pool.ts';
import { CKR_PIN_LOCKED, CKR_SESSION_COUNT, CKR_USER_ALREADY_LOGGED_IN, kindOfLogInRv, nameOfRv, rvOf } from './rv.ts';
import { asFailure, Session } from './session.ts';
import { throwawayAes } from './template.ts';

/** Sessions beside those that work for requests: keys are made and destroyed in one of its own, one at a time. */
const sessionsForChanges = 1;

/** One token, logged in: its login session, held for ever, and a pool of others. */
export class Token {
  readonly info: TokenInfo;
  readonly #pool: SessionPool;
  readonly #library: PKCS11;
  readonly #match: TokenMatch;
  readonly #pin: string | undefined;
  readonly #onLogIn: (notice: LogInNotice) => Promise<void>;
  #slot: Handle;
  #login: Session | undefined;
  #needsLogin = false;
  /** When a return value last meant that something is sick; what is ambiguous is judged by it. */
  lastFaultTime = Number.NEGATIVE_INFINITY;

  /**
   * @param serial - of the token that the PIN is for, where it is known. @param sessions - that work side by side.
   * @param onLogIn - hears of it before a PIN is sent, and once the token has answered.
   * @throws TokenFailure of kind `noToken` or `otherToken`.
   */
  constructor(
    library: PKCS11,
    { match, serial }: { match: TokenMatch; serial: string | undefined },
    { pin, sessions, onLogIn }: { pin: Uint8Array | undefined; sessions: number; onLogIn: (notice: LogInNotice) => Promise<void> },
  ) {
    this.#library = library;
    this.#match = match;
    this.#pin = pin && Buffer.from(pin).toString('utf8');
    this.#onLogIn = onLogIn;
    this.#pool = new SessionPool(sessions + sessionsForChanges, () => this.#openSession());
    const { slot, info } = this.#find(serial);
    this.#slot = slot;
    this.info = info;
  }

  get openSessions(): number {
    return this.#pool.count + (this.#login ? 1 : 0);
  }

  /**
   * Something is sick; what may as well be a bad ciphertext counts only when its judge says so, and a token that has no session left is well,
   * as is one that has no room, unless its check says otherwise.
   */
  readonly noteFault = (failure?: Failure): void => {
    if (!failure || !(isAmbiguous(failure) || isSessionCount(failure) || isFullness(failure))) this.lastFaultTime = performance.now();
  };

  /**
   * Logs in with a session that stays open.
   * @param automatic - nobody asked: the last try of a PIN is left to a person.
   * @throws TokenFailure of kind `pin`.
   */
  async login(automatic: boolean): Promise<void> {
    const flags = this.#readFlags();
    this.#needsLogin = (flags & CKF_LOGIN_REQUIRED) !== 0;
    const pin = this.#needsLogin ? this.#usablePin(flags, automatic) : undefined;
    const old = this.#login;
    this.#pool.clear(); // makes room for the new one
    const session = this.#openSession();
    if (pin !== undefined) await this.#logIn(session, pin);
    this.#login = session;
    old?.close();
  }

  /** @throws TokenFailure of kind `pin` where a try would be in vain, or the last. */
  #usablePin(flags: number, automatic: boolean): string {
    if (this.#pin === undefined) throw new TokenFailure({ kind: 'pin', why: 'needed' });
    if ((flags & CKF_USER_PIN_LOCKED) !== 0) throw new TokenFailure({ kind: 'pin', why: 'locked' });
    if (automatic && (flags & CKF_USER_PIN_FINAL_TRY) !== 0) throw new TokenFailure({ kind: 'pin', why: 'finalTry' });
    return this.#pin;
  }

  async #logIn(session: Session, pin: string): Promise<void> {
    await this.#onLogIn({ isLoggingIn: true });
    let isTaken = false;
    try {
      this.#library.C_Login(session.handle, CKU_USER, pin);
      isTaken = true;
    } catch (error) {
      const rv = rvOf(error);
      if (rv === CKR_USER_ALREADY_LOGGED_IN) return; // login is the application's, not the session's; the PIN was not looked at
      session.close();
      throw rv === undefined ? error : refusalOf(rv);
    } finally {
      await this.#onLogIn({ isLoggingIn: false, ...(isTaken ? { taker: this.info } : {}) });
    }
  }

  /** From C_Finalize on: only then is a token seen that went away and came back. Nothing may run meanwhile. */
  initialize(): void {
    this.#login = undefined;
    this.#pool.forget();
    try {
      this.#library.C_Finalize();
    } catch (error) {
      if (rvOf(error) === undefined) throw error; // a module that cannot even do that is initialized all the same
    }
    this.#try('C_Initialize', () => this.#library.C_Initialize({ flags: CKF_OS_LOCKING_OK }));
    this.#slot = this.#find(this.info.serial).slot;
  }

  /** Whether the token is there, is the same, is logged in, and can do something. @throws TokenFailure of kind `fault`. */
  async check(): Promise<void> {
    this.#readFlags();
    const random = (session: Session): void => void session.call('C_GenerateRandom', (library, handle) => library.C_GenerateRandom(handle, Buffer.alloc(16)));
    const work = this.use(async (session) => {
      const { state } = session.call('C_GetSessionInfo', (library, handle) => library.C_GetSessionInfo(handle));
      if (this.#needsLogin && state !== CKS_RW_USER_FUNCTIONS)
        throw new TokenFailure({ kind: 'fault', rv: 'CKR_USER_NOT_LOGGED_IN', call: 'C_GetSessionInfo' });
      if (!this.#probesWithAes) return random(session);
      const probe = await session.generateKey(CKM_AES_KEY_GEN, throwawayAes());
      await session.encrypt(aesMechanism('AES_CBC', Buffer.alloc(16), Buffer.alloc(0)), probe, Buffer.alloc(16));
      session.destroy(probe);
    });
    await work.catch(async (error: unknown) => {
      if (!(error instanceof TokenFailure) || !isFullness(error.failure)) throw error;
      await this.use(random); // no room for a session key either
    });
  }

  /** Flags of the token in the slot. @throws TokenFailure of kind `fault` where that is another one: it is sent no PIN. */
  #readFlags(): number {
    const read = this.#try('C_GetTokenInfo', () => this.#library.C_GetTokenInfo(this.#slot));
    const info = describeToken(read);
    if (!fits(info, this.#match) || info.serial !== this.info.serial) throw new TokenFailure({ kind: 'fault', rv: 'another token', call: 'C_GetTokenInfo' });
    return read.flags;
  }

  /** Whether AES with a session key can be the probe of a check. */
  get #probesWithAes(): boolean {
    return this.mechanisms().includes(CKM_AES_CBC);
  }

  mechanisms(): number[] {
    return this.#try('C_GetMechanismList', () => this.#library.C_GetMechanismList(this.#slot));
  }

  maxKeyBits(mechanism: number): number {
    return this.#try('C_GetMechanismInfo', () => this.#library.C_GetMechanismInfo(this.#slot, mechanism)).maxKeySize;
  }

  /** Lends a session. @see SessionPool.use */
  use<T>(work: (session: Session) => Promise<T> | T, fresh = false): Promise<T> {
    return this.#pool.use(work, fresh);
  }

  #openSession(): Session {
    return new Session(this.#library, this.#slot, this.noteFault);
  }

  #find(serial: string | undefined): { slot: Handle; info: TokenInfo } {
    return this.#try('C_GetSlotList', () => findToken(this.#library, this.#match, serial));
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

const isSessionCount = (failure: Failure): boolean => failure.kind === 'fault' && failure.rv === nameOfRv(CKR_SESSION_COUNT);

function refusalOf(rv: number): TokenFailure {
  const kind = kindOfLogInRv(rv);
  const name = nameOfRv(rv);
  if (kind === 'fault') return new TokenFailure({ kind: 'fault', rv: name, call: 'C_Login' });
  if (kind === 'vague') return new TokenFailure({ kind: 'logIn', rv: name });
  return new TokenFailure({ kind: 'pin', why: kind === 'refused' ? 'refused' : rv === CKR_PIN_LOCKED ? 'locked' : 'wrong', rv: name });
}
