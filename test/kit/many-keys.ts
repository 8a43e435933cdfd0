import { randomBytes } from 'node:crypto';
import { Aliases } from '../../daemon/src/keyring/aliases.ts';
import { Creation } from '../../daemon/src/keyring/creation.ts';
import type { Key } from '../../daemon/src/keyring/key.ts';
import { Keyring } from '../../daemon/src/keyring/keyring.ts';
import { TokenWork } from '../../daemon/src/keyring/token-work.ts';
import { makeUuid7 } from '../../daemon/src/keyring/uuid7.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';
import { passphrase } from './agent.ts';

/** Makes a vault with very many AES keys, every hundredth with an alias and every tenth with automatic rotation. @returns their ids. */
export async function makeVaultWithKeys(dataDir: string, count: number): Promise<string[]> {
  const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
  const { vault } = await Vault.create({ dataDir, clock: Date.now, argon2Cost, slots: [{ type: 'passphrase', passphrase }] });
  const keyring = new Keyring(vault, [new SoftwareProvider()], { now: Date.now, isBelievable: () => true, runningMs: () => 0, sinceBoot: () => 0 });
  const aliases = new Aliases(keyring);
  const creation = new Creation(keyring, aliases, new TokenWork({ keyring, onWarning: () => undefined }), () => undefined);
  const pattern = await creation.createKey({ uid: 0 }, { description: 'one of very many keys', tags: { lot: 'many' } });
  const ids: string[] = [];
  for (let made = 0; made < count; made += 1000) {
    const keys = Array.from({ length: Math.min(1000, count - made) }, (_, index) => copyKey(pattern, made + index));
    const named = keys.filter((_, index) => index % 100 === 0).map(({ keyId }) => aliases.make(`alias/many/${keyId}`, keyId));
    keyring.commit({ keys, aliases: named });
    ids.push(...keys.map(({ keyId }) => keyId));
  }
  vault.close();
  return ids;
}

function copyKey(pattern: Key, index: number): Key {
  const now = Date.now();
  const keyVersionId = makeUuid7(now);
  const versions = pattern.versions.map((version) => ({ ...version, keyVersionId, material: new Uint8Array(randomBytes(32)) }));
  const rotation = index % 10 === 0 ? { enabled: true, intervalMs: 86_400_000 * 30 } : { enabled: false };
  return { ...pattern, keyId: makeUuid7(now), primaryKeyVersionId: keyVersionId, versions, rotation, usage: { lastUsedTime: 0, writtenTime: 0 } };
}
