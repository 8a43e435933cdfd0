import type { GeneratedMaterial } from '../provider.ts';
import type { MadeKey } from './messages.ts';

/** What tells imported material from other: its proof, or for a pair its public key. Kept when the material is gone. */
export function encodePrevious({ material, publicKey }: GeneratedMaterial): string {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  return `${base64(material)}.${publicKey ? base64(publicKey) : ''}`;
}

/** What encodePrevious made. */
export function decodePrevious(text: string): MadeKey {
  const [proof = '', publicKey = ''] = text.split('.');
  return { proof: Buffer.from(proof, 'base64'), ...(publicKey === '' ? {} : { publicKey: Buffer.from(publicKey, 'base64') }) };
}
