import type { EncryptionAlgorithm, ImportWrappingAlgorithm, KeySpec, KeyUsage, PaddingMode, SigningAlgorithm } from '@kms-agent/protocol';
import { formatTokenUri } from './uri.ts';

/** How OAEP with a hash is done: by the token, or by the helper, which removes the padding of what CKM_RSA_X_509 decrypts. */
export type OaepWay = 'token' | 'helper';

/** What a token was seen to do with throw-away keys; its list of mechanisms alone promises too much. */
export interface TokenAbilities {
  readonly aesBits: readonly number[];
  /** Best first. */
  readonly aes: readonly EncryptionAlgorithm[];
  readonly rsaBits: readonly number[];
  readonly oaep: { readonly [A in EncryptionAlgorithm]?: OaepWay };
  readonly rsaSigning: readonly SigningAlgorithm[];
  readonly curves: readonly KeySpec[];
  /** Ways to unwrap an AES key inside the token. */
  readonly unwraps: readonly ImportWrappingAlgorithm[];
  /** Mechanisms that were tried and do what they should, and those that the token lists and does not do. */
  readonly works: readonly string[];
  readonly refused: readonly string[];
  /** What was refused in words that a sick token uses too: it is tried again. Named as in `works`. */
  readonly doubtful: readonly string[];
}

/** What a token says of itself (CK_TOKEN_INFO), padding removed. */
export interface TokenInfo {
  readonly label: string;
  readonly serial: string;
  readonly manufacturer: string;
  readonly model: string;
  readonly firmware: string;
}

/** Attributes of a PKCS#11 URI (RFC 7512 section 2.3) that choose a token. */
export interface TokenMatch {
  readonly token?: string;
  readonly serial?: string;
  readonly manufacturer?: string;
  readonly model?: string;
}

/** A key object to make: what its version id, label and usage flags will be. */
export interface NewKey {
  readonly keyVersionId: string;
  readonly keySpec: KeySpec;
  readonly keyUsage: KeyUsage;
  readonly label: string;
}

/** A key object to find: `proof` shows that it is still the one that was made. */
export interface KeyRef {
  readonly keyVersionId: string;
  readonly keySpec: KeySpec;
  readonly proof: Uint8Array;
  /** SPKI DER. */
  readonly publicKey?: Uint8Array;
}

/** What was made: `proof` goes into the vault. */
export interface MadeKey {
  readonly proof: Uint8Array;
  readonly publicKey?: Uint8Array;
}

/** One object of the token that has a CKA_ID as long as ours. */
export interface ListedObject {
  readonly keyVersionId: string;
  readonly label: string;
}

/** A way in that any token of a module offers, for people. */
export interface OfferedToken extends TokenInfo {
  readonly initialized: boolean;
  readonly mechanisms: readonly string[];
}

/** What is to be decrypted. */
export interface Ciphertext {
  readonly key: KeyRef;
  readonly algorithm: EncryptionAlgorithm;
  readonly ciphertext: Uint8Array;
  readonly aad?: Uint8Array;
  readonly iv?: Uint8Array;
  readonly paddingMode?: PaddingMode;
}

/** A fault within this time before makes a ciphertext that does not open doubtful: the token may still be sick. */
export const suspiciousMs = 1000;

/** The calls of the helper: what each takes and gives. */
export interface Calls {
  /** Loads the module and shows its tokens; nobody logs in. */
  offer: { takes: { module: string }; gives: { library: string; tokens: OfferedToken[] } };
  open: {
    /** `serial`: of the token that the PIN is known to be for; no other is sent it. Without `abilities` nothing works before a `probe`. */
    takes: { module: string; match: TokenMatch; serial?: string; pin?: Uint8Array; automatic: boolean; sessions: number; abilities?: TokenAbilities };
    gives: { token: TokenInfo };
  };
  /** Makes it good again: from a new login or from C_Initialize on. Ends with a check. */
  recover: { takes: { from: 'login' | 'initialize' }; gives: Record<string, never> };
  check: { takes: Record<string, never>; gives: Record<string, never> };
  /** Tries out what the token can do; of what is `known` only what is doubtful, and nothing that is said to cost helpers: that is doubtful. */
  probe: { takes: { known?: TokenAbilities; costly?: readonly string[] }; gives: { abilities: TokenAbilities } };
  generate: { takes: { key: NewKey }; gives: MadeKey };
  encrypt: {
    takes: { key: KeyRef; algorithm: EncryptionAlgorithm; plaintext: Uint8Array; aad?: Uint8Array; iv?: Uint8Array; paddingMode?: PaddingMode };
    gives: { ciphertext: Uint8Array; iv?: Uint8Array };
  };
  decrypt: { takes: Ciphertext; gives: { plaintext: Uint8Array } };
  /** Decrypts what was doubtful, or says that it does not open: takes some time, which others need not wait for. */
  judge: { takes: Ciphertext; gives: { plaintext: Uint8Array } };
  /** `signature` is r ‖ s for EC. */
  sign: { takes: { key: KeyRef; algorithm: SigningAlgorithm; digest: Uint8Array }; gives: { signature: Uint8Array } };
  /** Finds a key anew, and proves it. */
  prove: { takes: { key: KeyRef }; gives: Record<string, never> };
  /** `destroyed` counts objects; 0 when there was none. What is not proven ours is left. */
  destroy: { takes: { key: KeyRef }; gives: { destroyed: number } };
  /** A page of the list, `from` 0 or what the page before gave as `next`; the last one has none. */
  list: { takes: { from: number }; gives: { objects: ListedObject[]; next?: number } };
  /** `inToken`: the token unwraps with it; else it decrypts, and the helper unwraps. */
  makeWrappingPair: { takes: { id: string; bits: number; label: string; inToken: boolean }; gives: { publicKey: Uint8Array } };
  dropWrappingPair: { takes: { id: string }; gives: Record<string, never> };
  /** `previous` is the proof of the material that the key had before: only the same is taken again. */
  unwrap: {
    takes: {
      key: NewKey;
      wrappingId: string;
      algorithm: ImportWrappingAlgorithm;
      wrapped: Uint8Array;
      previous?: MadeKey;
      inToken: boolean;
      hasMaterial: boolean;
    };
    /** `adopted`: the token had the same key already under this id, as after an import that was cut off; that is used. */
    gives: MadeKey & { adopted: boolean };
  };
}

export type CallName = keyof Calls;

/** What became of the helper during a call: it died, perhaps of it; it was ended because the call did not end in time; or for a reason outside of the call. */
export type HelperEnd = 'died' | 'late' | 'ended';

/** Why a call did not succeed. */
export type Failure =
  /** Recovery may help. */
  | { readonly kind: 'fault'; readonly rv: string; readonly call: string; readonly helper?: HelperEnd }
  /** The input does not open, or is no material of the spec. */
  | { readonly kind: 'invalid' }
  /** The input does not open, or the token is sick: it answers both alike. */
  | { readonly kind: 'doubtful' }
  /** The key is not in the token, is there twice, or is another one. */
  | { readonly kind: 'key'; readonly why: 'missing' | 'ambiguous' | 'unproven' }
  /** Imported before with other material. */
  | { readonly kind: 'otherMaterial' }
  /** The token has another object under the id of a key that is to be imported; it is not touched. */
  | { readonly kind: 'inTheWay' }
  /** The wrapping pair of an import is not in the token any more. */
  | { readonly kind: 'noWrappingKey' }
  /** Nothing but a person helps. */
  | { readonly kind: 'pin'; readonly why: 'wrong' | 'locked' | 'finalTry' | 'needed' | 'refused' | 'untaken' | 'unread'; readonly rv?: string }
  /** C_Login failed in words that may mean a sick token or a refusal, or never ended: it may be tried again, but not often, because the token may count. */
  | { readonly kind: 'logIn'; readonly rv: string }
  /** No token, or more than one, fits the URI. */
  | { readonly kind: 'noToken'; readonly found: number }
  /** The token has the label of the one that a PIN was for, and another serial number: it is sent none. */
  | { readonly kind: 'otherToken'; readonly label: string; readonly serial: string; readonly expected: string }
  /** The token does not do a mechanism, whatever its list says. */
  | { readonly kind: 'unsupported'; readonly mechanism: string; readonly rv: string; readonly call: string }
  /** The package pkcs11js, or the module, does not load. */
  | { readonly kind: 'load'; readonly message: string }
  /** The token has no room for what was to be made, and is well. */
  | { readonly kind: 'full'; readonly rv: string; readonly call: string }
  | { readonly kind: 'failed'; readonly rv: string; readonly call: string };

export interface Request<C extends CallName = CallName> {
  readonly id: number;
  readonly call: C;
  readonly params: Calls[C]['takes'];
}

/** The id of the answer that nobody asked for: the helper is there. */
export const readyId = 0;

/** `openSessions`: that the token has then. */
export type Reply = { readonly id: number; readonly openSessions: number } & ({ readonly result: unknown } | { readonly failure: Failure });

/** Sent before C_Login begins, and once the token has answered: a helper that is lost in between has sent a PIN, and nobody knows whether the token counted it. */
export interface LogInNotice {
  readonly isLoggingIn: boolean;
  /** The token that answered C_Login with CKR_OK, and nothing else: the PIN is its own, whatever fails after it. */
  readonly taker?: TokenInfo;
}

/** Sent before something is tried out: a helper that is lost then was lost for it. */
export interface TryNotice {
  readonly trying: string;
}

/** Thrown on both sides; what it says goes over the pipe, and to the log, never to a caller. */
export class TokenFailure extends Error {
  override readonly name = 'TokenFailure';
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(describeFailure(failure));
    this.failure = failure;
  }
}

/** A failure in words for the log and for `status`. */
export function describeFailure(failure: Failure): string {
  if (failure.kind === 'fault' || failure.kind === 'failed' || failure.kind === 'full') return `${failure.call} answered ${failure.rv}`;
  if (failure.kind === 'unsupported') return `${failure.call} with ${failure.mechanism} answered ${failure.rv}`;
  if (failure.kind === 'key') return `the key object is ${failure.why}`;
  if (failure.kind === 'logIn') return `C_Login answered ${failure.rv}`;
  if (failure.kind === 'pin')
    return describePin[failure.why] + (failure.why === 'refused' || failure.why === 'untaken' ? ` (C_Login answered ${failure.rv})` : '');
  if (failure.kind === 'noToken') return failure.found === 0 ? 'no token fits its URI' : `${failure.found} tokens fit its URI; add the serial number`;
  if (failure.kind === 'otherToken')
    return `the token that fits has the serial number ${failure.serial}, and the one that its PIN is for ${failure.expected}; it is sent no PIN. If it takes the place of the other, set its uri in the settings to ${formatTokenUri(failure)} and start the agent anew`;
  return failure.kind === 'load' ? failure.message : failure.kind;
}

const describePin = {
  wrong: 'the token refused the PIN; give the right one with kms unlock --token',
  locked: "the token's PIN is locked; its security officer must set a new one",
  finalTry: 'one try of the PIN is left, which is kept for a person: kms unlock --token',
  unread: 'somebody is logged in to the token already, and its module looks at no PIN then',
  needed: 'the token needs a PIN: kms unlock --token',
  refused: 'the token refused to log in and is not asked again by itself: kms unlock --token',
  untaken:
    'the log-in to the token failed with a PIN that it has not taken before, which may be wrong and is not tried again by itself; check it, then kms unlock --token',
} as const;

/** Calls of PKCS#11 that make an object. */
const makers: ReadonlySet<string> = new Set(['C_GenerateKey', 'C_GenerateKeyPair', 'C_CreateObject', 'C_UnwrapKey']);

/** What a token answers that has no room for another object, and, some, when it is sick. */
export function isFullness(failure: Failure): boolean {
  return failure.kind === 'fault' && failure.rv === 'CKR_DEVICE_MEMORY' && makers.has(failure.call);
}

/** What a token answers to a ciphertext or a wrapping that does not open, and, some, when it is sick itself. */
export function isAmbiguous(failure: Failure): boolean {
  const isOpening = failure.kind === 'fault' && (failure.call === 'C_Decrypt' || failure.call === 'C_UnwrapKey');
  return isOpening && (failure.rv === 'CKR_GENERAL_ERROR' || failure.rv === 'CKR_FUNCTION_FAILED');
}
