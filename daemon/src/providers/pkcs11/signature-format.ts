import type { SignatureFormat, SigningAlgorithm } from '@kms-agent/protocol';
import { p1363ToDer } from '../software/ecdsa-format.ts';

/** A signature of a token in the form that is asked for. @throws TypeError for one that is no r ‖ s. */
export function formatSignature(signature: Uint8Array, algorithm: SigningAlgorithm, format: SignatureFormat | undefined): Uint8Array {
  if (algorithm !== 'ECDSA_SHA_256' || format === 'P1363') return signature;
  const der = p1363ToDer(signature);
  if (!der) throw new TypeError('the signature is no r ‖ s'); // one that verified is
  return der;
}
