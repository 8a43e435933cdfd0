import { AgentError } from '@kms-agent/protocol';

const destroyed = new WeakSet<Uint8Array>();

/** Overwrites material and remembers that it is none any more. */
export function destroyMaterial(material: Uint8Array): void {
  destroyed.add(material);
  material.fill(0);
}

/**
 * The last guard before bytes become a key: what is left of destroyed material is zeros, and zeros are a key to OpenSSL.
 * @throws AgentError `ERR_INTERNAL`: whoever asks has held on to a key that is gone.
 */
export function requireMaterial(material: Uint8Array): Uint8Array {
  if (!destroyed.has(material) && material.length > 0) return material;
  throw new AgentError('ERR_INTERNAL', {}, { cause: new TypeError('the material was destroyed') });
}
