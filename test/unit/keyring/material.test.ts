import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { initialVersion, type Key } from '../../../daemon/src/keyring/key.ts';
import { encodePublicKeyPem } from '../../../daemon/src/keyring/signer.ts';
import type { NewMaterial, UnwrapInput, UnwrappedMaterial } from '../../../daemon/src/providers/provider.ts';
import { SoftwareProvider } from '../../../daemon/src/providers/software/provider.ts';
import { wrapMaterial } from '../../kit/material.ts';
import { MemoryKeyring } from '../../kit/memory-keyring.ts';

/** The real provider; remembers what it handed out in clear. */
class WatchedProvider extends SoftwareProvider {
  readonly unwrapped: Uint8Array[] = [];

  override async unwrap(made: NewMaterial, input: UnwrapInput): Promise<UnwrappedMaterial> {
    const result = await super.unwrap(made, input);
    this.unwrapped.push(result.material);
    return result;
  }
}

const isWiped = (bytes: Uint8Array | undefined): boolean => bytes?.every((byte) => byte === 0) ?? false;

async function makeImported(): Promise<{ provider: WatchedProvider; world: MemoryKeyring; key: Key; bring: (material: Uint8Array) => Promise<unknown> }> {
  const provider = new WatchedProvider();
  const world = await MemoryKeyring.make(provider);
  const key = await world.creation.createKey({ uid: 0 }, { aliasName: 'alias/default', origin: 'EXTERNAL' });
  const { importToken, publicKey } = await world.material.parameters(key, { wrappingKeySpec: 'RSA_2048' });
  const bring = (material: Uint8Array): Promise<unknown> =>
    world.material.import(world.keyring.keyById(key.keyId), importToken, wrapMaterial(encodePublicKeyPem(publicKey), material));
  return { provider, world, key, bring };
}

test('material that is refused: overwritten at once', async () => {
  const { provider, bring } = await makeImported();
  await bring(randomBytes(32));
  await expect(bring(randomBytes(32))).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
  expect(provider.unwrapped.map(isWiped)).toEqual([false, true]);
});

test('material that is imported again: the copy of before is overwritten, and the key goes on with the new one', async () => {
  const { provider, world, key, bring } = await makeImported();
  const material = randomBytes(32);
  for (let round = 0; round < 3; round += 1) await bring(material);
  expect(provider.unwrapped.map(isWiped)).toEqual([true, true, false]);
  expect(initialVersion(world.keyring.keyById(key.keyId)).material).toEqual(new Uint8Array(material));
});
