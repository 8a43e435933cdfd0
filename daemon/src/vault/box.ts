import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto';
import { deriveKey, seal, unseal } from './seal.ts';

/** What stands before 32 bytes of an X25519 private key in PKCS#8, and of a public one in SPKI (RFC 8410 sections 7 and 4). */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');
const spkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');
const publicBytes = 32;

/** Opens boxes; undefined for what was not boxed for this vault, with other `aad`, or changed since. */
export type Unbox = (aad: Uint8Array, boxed: Uint8Array) => Buffer | undefined;

/** Makes a box that only the root key opens. */
export type Box = (aad: Uint8Array, plaintext: Uint8Array) => Buffer;

/** The private X25519 key (RFC 7748) that opens a vault's boxes, from its root key. */
export function deriveBoxKey(rootKey: Uint8Array): KeyObject {
  const number = deriveKey(rootKey, 'boxes');
  const der = Buffer.concat([pkcs8Prefix, number]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  number.fill(0);
  der.fill(0);
  return key;
}

/** The public part alone: what createPublicKey makes of a private key shares its memory, and would keep the private number there. */
export function publicPartOf(privateKey: KeyObject): KeyObject {
  const der = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return createPublicKey({ key: der, format: 'der', type: 'spki' });
}

const rawOf = (publicKey: KeyObject): Buffer => publicKey.export({ format: 'der', type: 'spki' }).subarray(-publicBytes);

/** Agrees on the key of one box: HKDF-SHA-256 of the shared secret, its salt both public keys, as RFC 9180 section 4.1 binds them. */
function agree(privateKey: KeyObject, publicKey: KeyObject, ephemeral: Uint8Array, recipient: Uint8Array): Buffer {
  const shared = diffieHellman({ privateKey, publicKey });
  const key = Buffer.from(hkdfSync('sha256', shared, Buffer.concat([ephemeral, recipient]), 'kms-agent box 1', 32));
  shared.fill(0);
  return key;
}

/**
 * Makes boxes for who holds the private key: whoever makes one cannot open it again.
 * A box is a 32-byte ephemeral public key ‖ what seal makes: 80 bytes more than its content.
 */
export function boxFor(publicKey: KeyObject): Box {
  const recipient = rawOf(publicKey);
  return (aad, plaintext) => {
    const pair = generateKeyPairSync('x25519');
    const ephemeral = rawOf(pair.publicKey);
    const key = agree(pair.privateKey, publicKey, ephemeral, recipient);
    const boxed = Buffer.concat([ephemeral, seal(key, aad, plaintext)]);
    key.fill(0);
    return boxed;
  };
}

/** Opens what boxFor made for this key. */
export function unboxWith(privateKey: KeyObject): Unbox {
  const recipient = rawOf(createPublicKey(privateKey));
  return (aad, boxed) => {
    const ephemeral = boxed.subarray(0, publicBytes);
    const publicKey = createPublicKey({ key: Buffer.concat([spkiPrefix, ephemeral]), format: 'der', type: 'spki' });
    const key = agree(privateKey, publicKey, ephemeral, recipient);
    const plaintext = unseal(key, aad, boxed.subarray(publicBytes));
    key.fill(0);
    return plaintext;
  };
}
