import { createHmac, createPrivateKey } from 'node:crypto';
import { decodeState, nextKey } from '../../daemon/src/audit/chain.ts';
import type { Key } from '../../daemon/src/keyring/key.ts';
import { decodeKey } from '../../daemon/src/keyring/record.ts';
import { deriveBoxKey, type Unbox, unboxWith } from '../../daemon/src/vault/box.ts';
import { Database } from '../../daemon/src/vault/database.ts';
import { deriveState } from '../../daemon/src/vault/inspection.ts';
import { Keyslots } from '../../daemon/src/vault/keyslots/index.ts';
import { Argon2Queue } from '../../daemon/src/vault/keyslots/passphrase.ts';
import { deriveKey, recordAad, unseal } from '../../daemon/src/vault/seal.ts';

/** Private numbers of RSA and EC, by their names in a JSON Web Key (RFC 7518 section 6). */
const numberNames = ['d', 'p', 'q', 'dp', 'dq', 'qi'] as const;

/** The private numbers of a PKCS#8 key, big-endian, by name. */
export function privateNumbers(pkcs8: Uint8Array): ReadonlyMap<string, Buffer> {
  const jwk = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' }).export({ format: 'jwk' });
  return new Map(numberNames.flatMap((name) => (jwk[name] === undefined ? [] : [[name, Buffer.from(String(jwk[name]), 'base64url')] as const])));
}

/** Everything secret that a vault's file holds, for who has the secret of a keyslot. */
export interface VaultSecrets {
  /** Of the slot that was opened. */
  readonly wrappingKey: Buffer;
  readonly rootKey: Buffer;
  readonly recordsKey: Buffer;
  readonly headSealingKey: Buffer;
  readonly headSumsKey: Buffer;
  /** The key of each record's seal. */
  readonly sealKeys: readonly Buffer[];
  /** What the material of keys with an unlockLifetime is sealed under. */
  readonly wrappingKeys: readonly Buffer[];
  /** Of each key version, by its id. */
  readonly material: ReadonlyMap<string, Buffer>;
  /** Keys of the checkpoints that were made. */
  readonly pastAuditKeys: readonly Buffer[];
  readonly nextAuditKey: Buffer;
  /** A key that is derived from the root key for one purpose. */
  derive(purpose: string): Buffer;
  /** Opens what the agent sealed under such a key. */
  unseal(purpose: string, aad: string, sealed: Uint8Array): Buffer;
}

/** The key of one seal, by its salt: as seal.ts derives it, which shows it to nobody. */
function sealKeyOf(key: Uint8Array, sealed: Uint8Array): Buffer {
  return createHmac('sha256', key)
    .update('kms-agent seal')
    .update(sealed.subarray(0, 32))
    .update(Buffer.from([1]))
    .digest();
}

function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} does not open`);
  return value;
}

async function openSlot(db: Database, passphrase: string): Promise<{ wrappingKey: Buffer; rootKey: Buffer; auditStartKey: Buffer }> {
  const slots = new Keyslots(db.vaultId, new Argon2Queue());
  const { keyslotId, wrappingKey } = await slots.open(db.keyslots(), { passphrase });
  const unwrap = (which: 'root key' | 'audit start key'): Buffer => required(slots.unwrap(db.keyslots().get(keyslotId) ?? '', wrappingKey, which), which);
  return { wrappingKey, rootKey: unwrap('root key'), auditStartKey: unwrap('audit start key') };
}

/** What a key with an unlockLifetime is sealed under; undefined for another. */
function wrappingKeyOf({ keyId, lifetime }: Key, unbox: Unbox): Buffer | undefined {
  return lifetime && required(unbox(Buffer.from(`kms-agent unlock lifetime 1 ${keyId}`), lifetime.boxedKey), `the box of ${keyId}`);
}

/** Opens a backup of a vault in this process, to know what must not be found in another. */
export async function readVaultSecrets(file: string, passphrase: string): Promise<VaultSecrets> {
  const db = Database.open(file, { frozen: true });
  const { wrappingKey, rootKey, auditStartKey } = await openSlot(db, passphrase);
  const { recordsKey, headSealingKey, headKey } = deriveState(rootKey);
  const sealKeys: Buffer[] = [];
  const material = new Map<string, Buffer>();
  const wrappingKeys: Buffer[] = [];
  const unbox = unboxWith(deriveBoxKey(rootKey));
  const pastAuditKeys: Buffer[] = [];
  let nextAuditKey = auditStartKey;
  for (const { kind, id, revision, sealed } of [...db.recordPages()].flat()) {
    sealKeys.push(sealKeyOf(recordsKey.export(), sealed));
    const plaintext = required(unseal(recordsKey, recordAad(db.vaultId, kind, id, revision), sealed), `${kind} ${id}`);
    if (kind === 'key') {
      const key = decodeKey(id, plaintext);
      const sealedUnder = wrappingKeyOf(key, unbox);
      if (sealedUnder) wrappingKeys.push(sealedUnder);
      for (const { keyVersionId, material: kept } of key.versions) {
        const open = sealedUnder ? unseal(sealedUnder, Buffer.from(`kms-agent material 1 ${keyVersionId}`), kept) : Buffer.from(kept);
        material.set(keyVersionId, required(open, keyVersionId));
      }
    }
    if (kind !== 'audit') continue;
    for (let left = decodeState(plaintext).number; left > 0; left -= 1) {
      pastAuditKeys.push(nextAuditKey);
      nextAuditKey = nextKey(nextAuditKey);
    }
  }
  db.close();
  const derive = (purpose: string): Buffer => deriveKey(rootKey, purpose);
  return {
    wrappingKey,
    rootKey,
    recordsKey: recordsKey.export(),
    headSealingKey,
    headSumsKey: Buffer.from(headKey.subarray(0, 32)),
    sealKeys,
    wrappingKeys,
    material,
    pastAuditKeys,
    nextAuditKey,
    derive,
    unseal: (purpose, aad, sealed) => required(unseal(derive(purpose), Buffer.from(aad), sealed), purpose),
  };
}
