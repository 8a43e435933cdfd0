/** A slot's wrapping key as a token's AES key sealed it; base64. Everything here is authenticated by what the slot wraps. */
export interface SealedByToken {
  /** Name of the token in the settings. */
  readonly token: string;
  /** Of the token; slots of the first kind have none. A PIN is sent before the slot can be checked: who changes it is found, and has had the PIN. */
  readonly serial?: string;
  /** What finds and proves the token's key. */
  readonly material: string;
  readonly algorithm: string;
  readonly iv?: string;
  readonly sealed: string;
}

/** What makes and opens slots of type `hsm`. Tokens are not the vault's business. */
export interface TokenSealer {
  /** Makes a key in the token and seals with it. */
  seal(keyslotId: string, wrappingKey: Uint8Array): Promise<SealedByToken>;
  /** @returns the wrapping key; undefined when the token is not there, or does not open it. */
  open(keyslotId: string, sealed: SealedByToken): Promise<Buffer | undefined>;
}

const optionalTexts = ['iv', 'serial'] as const;
const texts = ['token', 'material', 'algorithm', 'sealed'] as const;

export function isSealedByToken(value: unknown): value is SealedByToken {
  if (typeof value !== 'object' || value === null) return false;
  const fields = value as Record<string, unknown>; // any object has such properties, or undefined
  return texts.every((name) => typeof fields[name] === 'string') && optionalTexts.every((name) => ['undefined', 'string'].includes(typeof fields[name]));
}
