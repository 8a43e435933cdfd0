import { createDecipheriv, randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TestAgent } from '../kit/agent.ts';
import { importMaterial } from '../kit/material.ts';
import { Wire } from '../kit/wire.ts';

interface Answered {
  readonly id: number;
  readonly result?: Record<string, string>;
  readonly error?: { readonly data: { readonly code: string } };
}

test('deleteKeyMaterial among encryptions in one go: each is refused, or is under the real key, and never under what is left of it', async () => {
  await using agent = await TestAgent.dev('--no-default-key');
  const kms = await agent.client();
  const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  const material = randomBytes(32);
  using wire = await Wire.open(agent.socketPath);
  const plaintext = Buffer.from('what is kept');
  const methods = ['encrypt', 'advanceEncrypt', 'generateDataKey', 'advanceGenerateDataKey', 'generateDataKeyWithoutPlaintext'];
  let [sealed, refused] = [0, 0];
  for (let round = 0; round < 60; round += 1) {
    await importMaterial(kms, keyId, material);
    const calls = Array.from({ length: 16 }, (_, index) => {
      const method = methods[(index + round) % methods.length] ?? '';
      const params = method.includes('ncrypt') ? { plaintext: plaintext.toString('base64') } : {};
      return { jsonrpc: '2.0', id: index, method, params };
    });
    if (round % 2 === 1) calls.splice(round % 16, 0, { jsonrpc: '2.0', id: 99, method: 'deleteKeyMaterial', params: { keyId } as never });
    const parts = Array.from({ length: Math.ceil(calls.length / 4) }, (_, index) => calls.slice(index * 4, index * 4 + 4));
    const answers: Answered[] = [];
    for (const part of parts) {
      wire.send(`${JSON.stringify(part)}\n`);
      await setImmediate(); // so that some are under way when the deletion begins
    }
    for (const _ of parts) answers.push(...(await wire.answer<Answered[]>()));
    for (const { id, result, error } of answers) {
      if (id === 99) continue;
      if (error) {
        expect(error.data.code).toBe('ERR_KEY_PENDING_IMPORT');
        refused += 1;
        continue;
      }
      const blob = Buffer.from(result?.['ciphertextBlob'] ?? '', 'base64');
      const [iv, aad, body] = result?.['iv']
        ? [Buffer.from(result['iv'], 'base64'), Buffer.alloc(0), blob]
        : [blob.subarray(22, 34), blob.subarray(0, 22), blob.subarray(34)];
      const decipher = createDecipheriv('aes-256-gcm', material, iv);
      decipher.setAAD(aad);
      decipher.setAuthTag(body.subarray(-16));
      decipher.update(body.subarray(0, -16));
      decipher.final(); // throws unless it was sealed under the material
      sealed += 1;
    }
  }
  expect(sealed).toBeGreaterThan(60);
  expect(refused).toBeGreaterThan(10);
});
