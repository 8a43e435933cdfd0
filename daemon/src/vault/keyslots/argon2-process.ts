import { argon2Sync } from 'node:crypto';
import { readFileSync, writeSync } from 'node:fs';
import { forbidInspection } from '../../os/libc.ts';

/*
 * A process for one derivation. Argon2id inside the agent would take the thread pool from every signature beside it, and it fails under --secure-heap.
 * Standard input: one line of JSON with the parameters, then the passphrase. Standard output: the 32 bytes of key.
 */
forbidInspection();
const input = readFileSync(0);
const end = input.indexOf(0x0a);
const { memoryKiB, passes, parallelism, salt } = JSON.parse(input.toString('utf8', 0, end)) as {
  memoryKiB: number;
  passes: number;
  parallelism: number;
  salt: string;
}; // written by passphrase.ts
const key = argon2Sync('argon2id', {
  message: input.subarray(end + 1),
  nonce: Buffer.from(salt, 'base64'),
  memory: memoryKiB,
  passes,
  parallelism,
  tagLength: 32,
});
input.fill(0);
writeSync(1, key);
key.fill(0);
