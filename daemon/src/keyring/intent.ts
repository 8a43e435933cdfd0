import type { KeySpec } from '@kms-agent/protocol';
import type { MaterialRef } from '../providers/provider.ts';

/**
 * Something that is about to happen in a token, written to the vault before it does: two stores cannot change in one step.
 * `id` is the key version, or for `wrap` the wrapping pair.
 */
export interface Intent {
  readonly id: string;
  readonly provider: string;
  readonly act: 'make' | 'destroy' | 'wrap';
  readonly keyId: string;
  readonly keySpec: KeySpec;
  /** Of `wrap`: when the pair is of no more use. */
  readonly expireTime?: number;
  /** Of `destroy`: what finds and proves the object, base64. */
  readonly material?: string;
  readonly publicKey?: string;
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

/** What a `destroy` intent is to destroy. */
export const toRef = ({ id, keySpec, material = '', publicKey }: Intent): MaterialRef => ({
  keyVersionId: id,
  keySpec,
  material: Buffer.from(material, 'base64'),
  ...(publicKey === undefined ? {} : { publicKey: Buffer.from(publicKey, 'base64') }),
});

/** The intent to destroy a version where it lives. */
export function destroyIntent(provider: string, keyId: string, { keyVersionId: id, keySpec, material, publicKey }: MaterialRef): Intent {
  return { id, provider, act: 'destroy', keyId, keySpec, material: base64(material), ...(publicKey ? { publicKey: base64(publicKey) } : {}) };
}
