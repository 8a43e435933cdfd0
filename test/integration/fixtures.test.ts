import { chmodSync, copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { utf8 } from '@kms-agent/client';
import { decryptStream } from '@kms-agent/client/age';
import { expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { ClockedAgent } from '../kit/clocked.ts';
import { collectBytes, inPieces } from '../kit/streams.ts';

/** What is known of a frozen vault. */
interface Facts {
  passphrase: string;
  recoveryCode: string;
  madeAt: number;
  message: string;
  imported: string;
  rotated: string;
  disabled: string;
  destroyed: string;
  pending: string;
  service: string;
  blobs: string[];
  signatures: { keyId: string; signature: string }[];
}

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));

test.each(['passphrase', 'recoveryCode'] as const)(
  'a vault of format 1, frozen: this agent opens it with its %s, and every key is what it was',
  async (secret) => {
    const facts = JSON.parse(readFileSync(fixture('vault-format-1/facts.json'), 'utf8')) as Facts;
    using folder = new TempFolder();
    mkdirSync(folder.join('vault'), { mode: 0o700 });
    copyFileSync(fixture('vault-format-1/vault.db'), folder.join('vault', 'vault.db'));
    chmodSync(folder.join('vault', 'vault.db'), 0o600);
    const from = { wallMs: facts.madeAt, bootMs: 60_000, bootId: 'another boot' };
    await using agent = await ClockedAgent.start(folder, {}, { from, unlock: false });
    const { kms } = agent;
    await kms.unlock({ passphrase: facts[secret] });
    const message = utf8(facts.message);
    for (const blob of facts.blobs) expect((await kms.advanceDecrypt({ ciphertextBlob: bytes(blob) })).plaintext).toEqual(message);
    const file = readFileSync(fixture('vault-format-1/file.age'));
    const plaintext = Buffer.from(Array.from({ length: 70_000 }, (_, index) => index % 251));
    expect((await collectBytes(decryptStream(kms, inPieces(file)))).equals(plaintext)).toBe(true);
    for (const { keyId, signature } of facts.signatures) {
      await kms.assertValidSignature({ keyId, message, signature: bytes(signature) });
      await kms.assertValidSignature({ ...(await kms.sign({ keyId, message })), message });
    }
    const { keys } = await kms.listKeys();
    const described = Object.fromEntries(keys.map((key) => [key.keyId, key]));
    expect(keys).toHaveLength(8);
    expect(described[facts.imported]).toMatchObject({ keyState: 'Enabled', origin: 'EXTERNAL', aliases: ['alias/default'], description: 'imported' });
    expect(described[facts.rotated]).toMatchObject({ keyVersionCount: 2, tags: { team: 'web' }, rotation: { status: 'Enabled', rotationInterval: '30d' } });
    expect(described[facts.disabled]).toMatchObject({ keyState: 'Disabled', deletionProtection: { enabled: true } });
    expect(described[facts.pending]).toMatchObject({ keyState: 'PendingDeletion' });
    expect(described[facts.service]).toMatchObject({ defaultKind: 'SERVICE', service: 'nginx.service' });
    await expect(kms.describeKey({ keyId: facts.destroyed })).rejects.toMatchObject({ details: { deletionTime: new Date(facts.madeAt).toISOString() } });
  },
);
