import { AgentError } from '@kms-agent/protocol';
import type { MaterialRef, NewMaterial } from '../provider.ts';
import type { KeyRef, NewKey } from './messages.ts';

/** What finds the object of a version. @throws AgentError `ERR_INTERNAL` for one whose material was destroyed. */
export function toRef({ keyVersionId, keySpec, material, publicKey }: MaterialRef): KeyRef {
  if (material.length === 0) throw new AgentError('ERR_INTERNAL', {}, { cause: new TypeError('the material was destroyed') });
  return { keyVersionId, keySpec, proof: material, ...(publicKey ? { publicKey } : {}) };
}

/** CKA_LABEL that a person can read in other tools. */
const labelOf = ({ keyId, keySpec }: NewMaterial): string => `kms-agent ${keySpec} ${keyId}`;

/** What names the object of a version that is to be made. */
export const toNewKey = (made: NewMaterial): NewKey => ({
  keyVersionId: made.keyVersionId,
  keySpec: made.keySpec,
  keyUsage: made.keyUsage,
  label: labelOf(made),
});
