import { readFileSync, writeSync } from 'node:fs';
import { forbidInspection } from './libc.ts';

/*
 * A process for one call of the OS keychain. keytar can segfault, and waits for as long as somebody leaves a prompt open.
 * Standard input: a line of JSON {service, account, act}, then the secret to store. Standard output: nothing when the keychain has none,
 * else a byte and the secret. In the keychain secrets are base64: a NUL byte would cut them short.
 */
/** What is used of keytar 7.9. Null when there is nothing, and when the keychain is locked and nobody can be asked. */
interface Keytar {
  getPassword(service: string, account: string): Promise<string | null>;
  setPassword(service: string, account: string, password: string): Promise<void>;
  deletePassword(service: string, account: string): Promise<boolean>;
}

forbidInspection();
const input = readFileSync(0);
const end = input.indexOf(0x0a);
const { service, account, act } = JSON.parse(input.toString('utf8', 0, end)) as {
  service: string;
  account: string;
  act: 'read' | 'store' | 'remove';
}; // written by keychain.ts
const name: string = 'keytar'; // an optional dependency: no literal in the import, so that the build does not ask for its types
const { default: keytar } = (await import(name)) as { default: Keytar };
if (act === 'remove') await keytar.deletePassword(service, account);
if (act === 'store') await keytar.setPassword(service, account, input.toString('base64', end + 1));
const kept = await keytar.getPassword(service, account); // also after storing: a keychain that does not give it back has not stored it
if (kept !== null) writeSync(1, Buffer.concat([Buffer.from([1]), Buffer.from(kept, 'base64')]));
