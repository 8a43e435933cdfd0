import koffi from 'koffi';

/**
 * Signing and verifying a digest that was made elsewhere, with the libcrypto inside Node: `crypto.sign(null, digest)` would hash it again.
 * OpenSSL 3: EVP_PKEY_sign(3), EVP_PKEY_CTX_ctrl(3).
 */
const libcrypto = koffi.load(null);

const d2iPrivateKey = libcrypto.func('void *d2i_AutoPrivateKey(void *reuse, const uint8_t **der, long length)');
const d2iPublicKey = libcrypto.func('void *d2i_PUBKEY(void *reuse, const uint8_t **der, long length)');
const freeKey = libcrypto.func('void EVP_PKEY_free(void *key)');
const newContext = libcrypto.func('void *EVP_PKEY_CTX_new(void *key, void *engine)');
const freeContext = libcrypto.func('void EVP_PKEY_CTX_free(void *context)');
const initSign = libcrypto.func('int EVP_PKEY_sign_init(void *context)');
const initVerify = libcrypto.func('int EVP_PKEY_verify_init(void *context)');
const control = libcrypto.func('int EVP_PKEY_CTX_ctrl_str(void *context, const char *name, const char *value)');
const evpSign = libcrypto.func(
  'int EVP_PKEY_sign(void *context, _Out_ uint8_t *signature, _Inout_ size_t *length, const uint8_t *digest, size_t digestLength)',
);
const evpVerify = libcrypto.func('int EVP_PKEY_verify(void *context, const uint8_t *signature, size_t length, const uint8_t *digest, size_t digestLength)');
const clearErrors = libcrypto.func('void ERR_clear_error()');

/** A key inside OpenSSL; its private numbers are in the secure heap. Free it exactly once. */
export class EvpKey {
  #pointer: unknown;

  private constructor(pointer: unknown, what: string) {
    if (!pointer) throw new TypeError(`OpenSSL does not read this ${what} key`);
    this.#pointer = pointer;
  }

  /** @param der - PKCS#8 (RFC 5958). @throws TypeError when OpenSSL does not read it. */
  static fromPrivate(der: Uint8Array): EvpKey {
    return new EvpKey(d2iPrivateKey(null, [der], der.length), 'private');
  }

  /** @param der - SPKI (RFC 5280). @throws TypeError when OpenSSL does not read it. */
  static fromPublic(der: Uint8Array): EvpKey {
    return new EvpKey(d2iPublicKey(null, [der], der.length), 'public');
  }

  get pointer(): unknown {
    if (!this.#pointer) throw new TypeError('the key was freed');
    return this.#pointer;
  }

  free(): void {
    freeKey(this.pointer);
    this.#pointer = undefined;
  }
}

/** Settings of a signature as EVP_PKEY_CTX_ctrl_str takes them, in order. */
export type EvpSettings = readonly (readonly [name: string, value: string])[];

/** RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 8017 section 8.1). */
export const pssSettings: EvpSettings = [
  ['rsa_padding_mode', 'pss'],
  ['digest', 'SHA256'],
  ['rsa_pss_saltlen', '32'],
  ['rsa_mgf1_md', 'SHA256'],
];

/** RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2). */
export const pkcs1Settings: EvpSettings = [
  ['rsa_padding_mode', 'pkcs1'],
  ['digest', 'SHA256'],
];

/** ECDSA takes the digest as it is (FIPS 186-5 section 6.4). */
export const ecdsaSettings: EvpSettings = [];

function openContext(key: EvpKey, init: (context: unknown) => number, settings: EvpSettings): unknown {
  const context: unknown = newContext(key.pointer, null);
  const ready = context && init(context) === 1 && settings.every(([name, value]) => control(context, name, value) > 0);
  if (ready) return context;
  if (context) freeContext(context);
  clearErrors();
  throw new TypeError('OpenSSL refuses these signature settings for this key');
}

/** Runs a function of libcrypto on a worker thread. */
function runOffLoop(call: ReturnType<typeof libcrypto.func>, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: Error | null, result: number) => (error ? reject(error) : resolve(result)));
  });
}

/**
 * Signs a digest off the event loop.
 * @param maxBytes - room for the signature: k for RSA, 72 for ECDSA on a 256-bit curve.
 * @returns k bytes for RSA, ASN.1 DER for ECDSA.
 */
export async function signDigest(key: EvpKey, settings: EvpSettings, digest: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  const context = openContext(key, initSign, settings);
  try {
    const signature = Buffer.alloc(maxBytes);
    const length = [maxBytes];
    if ((await runOffLoop(evpSign, context, signature, length, digest, digest.length)) !== 1) throw new TypeError('OpenSSL did not sign');
    return signature.subarray(0, length[0]);
  } finally {
    freeContext(context);
  }
}

/** Verifies a signature of a digest; false for whatever is not one. Public-key work, some tens of microseconds. */
export function verifyDigest(key: EvpKey, settings: EvpSettings, digest: Uint8Array, signature: Uint8Array): boolean {
  const context = openContext(key, initVerify, settings);
  try {
    return evpVerify(context, signature, signature.length, digest, digest.length) === 1;
  } finally {
    clearErrors();
    freeContext(context);
  }
}
