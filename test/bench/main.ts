import { spawn } from 'node:child_process';
import { createCipheriv, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from '@kms-agent/client';

/*
 * `npm run bench`: operations a second through the real socket, beside node:crypto in one process, as ratios of one run.
 * Every answer is checked; slowness never fails.
 */

const seconds = process.argv.includes('--quick') ? 0.5 : 2;
const program = join(fileURLToPath(new URL('../..', import.meta.url)), 'daemon', 'bin', 'kms-agent.js');
const agent = spawn(process.execPath, [program, 'dev'], { stdio: ['ignore', 'pipe', 'inherit'] });
const [announced] = (await once(agent.stdout, 'data')) as [Buffer];
const kms = await connect({
  socketPath: announced
    .toString()
    .replace(/^export KMS_AGENT_SOCK=/, '')
    .trim(),
});
const message = randomBytes(1024);
const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });

/** Operations a second with so many in flight. */
async function measure(inFlight: number, operation: () => unknown): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let count = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (performance.now() < end) {
        await operation();
        count += 1;
      }
    }),
  );
  return count / seconds;
}

const signed = await kms.sign({ keyId, message });
await kms.assertValidSignature({ ...signed, message });
const sealed = await kms.advanceEncrypt({ plaintext: message });
if (!Buffer.from((await kms.advanceDecrypt(sealed)).plaintext).equals(message)) throw new Error('the agent decrypts to something else');

const pair = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const key = randomBytes(32);
const encryptHere = (): void => {
  const cipher = createCipheriv('aes-256-gcm', key, randomBytes(12), { authTagLength: 16 });
  cipher.update(message);
  cipher.final();
};
const here = { sign: await measure(1, () => sign('sha256', message, pair.privateKey)), encrypt: await measure(1, encryptHere) };
const rows = [];
for (const inFlight of [1, 64]) {
  const signs = await measure(inFlight, () => kms.sign({ keyId, message }));
  const encrypts = await measure(inFlight, () => kms.advanceEncrypt({ plaintext: message }));
  rows.push({ operation: 'sign EC_P256', inFlight, perSecond: signs, ofInProcess: signs / here.sign });
  rows.push({ operation: 'advanceEncrypt 1 KiB', inFlight, perSecond: encrypts, ofInProcess: encrypts / here.encrypt });
}
if (process.argv.includes('--json')) console.log(JSON.stringify(rows));
else
  for (const { operation, inFlight, perSecond, ofInProcess } of rows)
    console.log(
      `${operation.padEnd(22)} ${String(inFlight).padStart(3)} in flight ${perSecond.toFixed(0).padStart(8)}/s  ${ofInProcess.toFixed(2)} of node:crypto in process`,
    );
kms.close();
agent.kill('SIGTERM');
