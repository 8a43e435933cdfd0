import { randomBytes } from 'node:crypto';

/** Bytes of the secret of a credential slot. */
const secretBytes = 32;

/** The secret of a new credential slot, as its credential holds it: 256 random bits in base64. */
export function makeCredentialSecret(): string {
  return randomBytes(secretBytes).toString('base64');
}

/** Reads what a credential holds. @returns the secret, the caller's to wipe; undefined for what is none. */
export function parseCredentialSecret(bytes: Uint8Array): Buffer | undefined {
  const text = Buffer.from(bytes).toString('latin1');
  const secret = Buffer.from(text, 'base64');
  if (secret.length === secretBytes && secret.toString('base64') === text) return secret;
  secret.fill(0);
  return undefined;
}
