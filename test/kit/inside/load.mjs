// Runs inside the container, beside the installed client: load.mjs CLIENTS FILE. Works without a pause until its input ends, and prints what became of it.
// FILE holds the number of restarts so far; the most that came during one call is printed too.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const { connect } = createRequire('/usr/lib/kms-agent/node_modules/@kms-agent/')('@kms-agent/client');
const clients = Number(process.argv[2]);
const [failures, keyIds] = [[], new Set()];
const restarts = () => Number(readFileSync(process.argv[3], 'utf8'));
let [calls, longestMs, mostRestarts, ended] = [0, 0, 0, false];
process.stdin.on('end', () => (ended = true)).resume();

async function count(work) {
  const [start, before] = [performance.now(), restarts()];
  try {
    const result = await work();
    calls += 1;
    longestMs = Math.max(longestMs, performance.now() - start);
    mostRestarts = Math.max(mostRestarts, restarts() - before);
    return result;
  } catch (error) {
    failures.push(`${error.code ?? error}`);
    return undefined;
  }
}

async function work(number) {
  const kms = await connect(); // with the time that every program has
  for (let round = 0; !ended; round += 1) {
    const plaintext = Buffer.from(`client ${number} round ${round}`);
    const sealed = await count(() => kms.advanceEncrypt({ plaintext }));
    const opened = sealed && (await count(() => kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })));
    if (opened && !plaintext.equals(opened.plaintext)) failures.push('another plaintext');
    await count(() => kms.generateDataKey({ keyId: 'alias/default' }));
    if (round % 50 === 0) {
      const made = await count(() => kms.createKey({ description: `client ${number} round ${round}` }));
      if (made) keyIds.add(made.keyId);
    }
  }
  kms.close();
}

await Promise.all(Array.from({ length: clients }, (_, number) => work(number)));
const kms = await connect();
let missing = 0;
for (const keyId of keyIds) await kms.describeKey({ keyId }).catch(() => (missing += 1));
kms.close();
console.log(JSON.stringify({ calls, failures, keys: keyIds.size, missing, longestMs: Math.round(longestMs), mostRestarts }));
