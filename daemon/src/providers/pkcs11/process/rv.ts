/*
 * Return values of PKCS#11 v2.40 (OASIS, section 5.1), by what is to be done about them. Only the number of an error of pkcs11js is trusted.
 */
const faults: Readonly<Record<number, string>> = {
  2: 'CKR_HOST_MEMORY',
  3: 'CKR_SLOT_ID_INVALID',
  5: 'CKR_GENERAL_ERROR',
  6: 'CKR_FUNCTION_FAILED',
  48: 'CKR_DEVICE_ERROR',
  49: 'CKR_DEVICE_MEMORY',
  50: 'CKR_DEVICE_REMOVED',
  80: 'CKR_FUNCTION_CANCELED',
  96: 'CKR_KEY_HANDLE_INVALID',
  130: 'CKR_OBJECT_HANDLE_INVALID',
  144: 'CKR_OPERATION_ACTIVE',
  145: 'CKR_OPERATION_NOT_INITIALIZED',
  176: 'CKR_SESSION_CLOSED',
  177: 'CKR_SESSION_COUNT',
  179: 'CKR_SESSION_HANDLE_INVALID',
  224: 'CKR_TOKEN_NOT_PRESENT',
  225: 'CKR_TOKEN_NOT_RECOGNIZED',
  257: 'CKR_USER_NOT_LOGGED_IN',
  336: 'CKR_BUFFER_TOO_SMALL',
  400: 'CKR_CRYPTOKI_NOT_INITIALIZED',
};
const badData: Readonly<Record<number, string>> = {
  32: 'CKR_DATA_INVALID',
  33: 'CKR_DATA_LEN_RANGE',
  64: 'CKR_ENCRYPTED_DATA_INVALID',
  65: 'CKR_ENCRYPTED_DATA_LEN_RANGE',
  272: 'CKR_WRAPPED_KEY_INVALID',
  274: 'CKR_WRAPPED_KEY_LEN_RANGE',
};
const pins: Readonly<Record<number, string>> = {
  160: 'CKR_PIN_INCORRECT',
  161: 'CKR_PIN_INVALID',
  162: 'CKR_PIN_LEN_RANGE',
  163: 'CKR_PIN_EXPIRED',
  164: 'CKR_PIN_LOCKED',
};
const others: Readonly<Record<number, string>> = {
  7: 'CKR_ARGUMENTS_BAD',
  9: 'CKR_NEED_TO_CREATE_THREADS',
  10: 'CKR_CANT_LOCK',
  16: 'CKR_ATTRIBUTE_READ_ONLY',
  17: 'CKR_ATTRIBUTE_SENSITIVE',
  18: 'CKR_ATTRIBUTE_TYPE_INVALID',
  19: 'CKR_ATTRIBUTE_VALUE_INVALID',
  84: 'CKR_FUNCTION_NOT_SUPPORTED',
  98: 'CKR_KEY_SIZE_RANGE',
  99: 'CKR_KEY_TYPE_INCONSISTENT',
  104: 'CKR_KEY_FUNCTION_NOT_PERMITTED',
  112: 'CKR_MECHANISM_INVALID',
  113: 'CKR_MECHANISM_PARAM_INVALID',
  192: 'CKR_SIGNATURE_INVALID',
  208: 'CKR_TEMPLATE_INCOMPLETE',
  209: 'CKR_TEMPLATE_INCONSISTENT',
  226: 'CKR_TOKEN_WRITE_PROTECTED',
  258: 'CKR_USER_PIN_NOT_INITIALIZED',
  259: 'CKR_USER_TYPE_INVALID',
  304: 'CKR_DOMAIN_PARAMS_INVALID',
  320: 'CKR_CURVE_NOT_SUPPORTED',
  512: 'CKR_FUNCTION_REJECTED',
};

/** Said of a mechanism, or a curve, whoever's key it is. A key of a size that the token does not take is none of these: material may be wrong. */
const unsupported: ReadonlySet<number> = new Set([84, 112, 113, 320]);

/** Whether a call that names a mechanism was refused because the token does not do it. */
export const isUnsupported = (rv: number): boolean => unsupported.has(rv);

export const CKR_SESSION_COUNT = 0xb1;
export const CKR_USER_ALREADY_LOGGED_IN = 0x100;
export const CKR_PIN_LOCKED = 0xa4;
const firstVendorDefined = 0x8000_0000;

/**
 * `fault`: the session, the login or the token is gone or sick, and recovery may help. `data`: the input does not open.
 * `pin`: the token refused the PIN. `failed`: the token understood and will not.
 */
export type RvKind = 'fault' | 'data' | 'pin' | 'failed';

export function kindOfRv(rv: number): RvKind {
  if (Object.hasOwn(faults, rv) || rv >= firstVendorDefined) return 'fault';
  if (Object.hasOwn(badData, rv)) return 'data';
  return Object.hasOwn(pins, rv) ? 'pin' : 'failed';
}

/** Faults elsewhere, but in C_Login words for a refusal as well. */
const vagueOfLogIn: ReadonlySet<number> = new Set([5, 6]);
/** CKR_USER_PIN_NOT_INITIALIZED and CKR_USER_TYPE_INVALID: only a person can change what they say. */
const finalOfLogIn: ReadonlySet<number> = new Set([258, 259]);

/**
 * What C_Login says, by what is to be done about it. `fault`: the device, the session or the token is sick, and the log-in was not judged.
 * `pin` and `refused`: another try is in vain. `vague`: that may be so, and the token may count tries.
 */
export function kindOfLogInRv(rv: number): 'fault' | 'pin' | 'refused' | 'vague' {
  if (Object.hasOwn(pins, rv)) return 'pin';
  if (finalOfLogIn.has(rv)) return 'refused';
  return Object.hasOwn(faults, rv) && !vagueOfLogIn.has(rv) ? 'fault' : 'vague';
}

/** The name of a return value, or its number in hexadecimal. */
export function nameOfRv(rv: number): string {
  return faults[rv] ?? badData[rv] ?? pins[rv] ?? others[rv] ?? `0x${rv.toString(16)}`;
}

/** The return value that a call of pkcs11js threw; undefined when it threw something else. */
export function rvOf(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  if ('code' in error && typeof error.code === 'number' && error.code !== 0) return error.code;
  const [, number] = /^CKR_\w+:(\d+)/.exec(error.message) ?? []; // its asynchronous calls that make keys reject with what came from below
  return number === undefined ? undefined : Number(number);
}
