import { describeKey } from '../keyring/metadata.ts';
import { encodePublicKeyPem } from '../keyring/signer.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** Material that comes from outside. */
export function materialOperations({ agent }: OperationsContext): Pick<Handlers, 'getParametersForImport' | 'importKeyMaterial' | 'deleteKeyMaterial'> {
  return {
    getParametersForImport: async (_caller, { keyId, ...choices }) => {
      const { keyring, material } = agent.open;
      const key = keyring.resolve(keyId);
      const { importToken, publicKey, wrappingAlgorithm, expireTime } = await material.parameters(key, choices);
      const importTokenExpireTime = new Date(expireTime).toISOString();
      return { keyId: key.keyId, importToken, publicKey: encodePublicKeyPem(publicKey), wrappingAlgorithm, importTokenExpireTime };
    },
    importKeyMaterial: async (_caller, { keyId, encryptedKeyMaterial, importToken, materialExpireTime }) => {
      const { keyring, material, watch } = agent.open;
      const expireTime = materialExpireTime === undefined ? undefined : Date.parse(materialExpireTime);
      const { key, unwrappedIn } = await material.import(keyring.resolve(keyId), importToken, encryptedKeyMaterial, expireTime);
      watch.note(key);
      return { keyMetadata: describeKey(keyring, key), unwrappedIn };
    },
    deleteKeyMaterial: async (_caller, { keyId }) => {
      const { keyring, material } = agent.open;
      return describeKey(keyring, await material.delete(keyring.resolve(keyId)));
    },
  };
}
