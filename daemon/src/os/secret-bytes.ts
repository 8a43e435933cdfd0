/**
 * Zeroed bytes for a secret. V8 keeps typed arrays of up to 64 bytes, those of Buffer.alloc and randomBytes among them, on a heap whose
 * collections move them, and what they leave behind nobody can overwrite; an ArrayBuffer of its own stays where it is.
 */
export function allocateSecret(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes));
}
