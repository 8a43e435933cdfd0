import { readFileSync, writeSync } from 'node:fs';
import { forbidInspection } from './libc.ts';

/*
 * A process for one call of the OS keychain. keytar can segfault, and waits for as long as somebody leaves a prompt open.
 * Standard input: JSON {service, account, secret?}; with a secret it is stored, else it is read. Standard output: JSON {secret}.
 * Secrets are base64: a NUL byte would cut them short.
 */
/** What is used of keytar 7.9. Null when there is nothing, and when the keychain is locked and nobody can be asked. */
interface Keytar {
  getPassword(service: string, account: string): Promise<string | null>;
  setPassword(service: string, account: string, password: string): Promise<void>;
}

forbidInspection();
const { service, account, secret } = JSON.parse(readFileSync(0, 'utf8')) as { service: string; account: string; secret?: string }; // written by keychain.ts
const name: string = 'keytar'; // an optional dependency: no literal in the import, so that the build does not ask for its types
const { default: keytar } = (await import(name)) as { default: Keytar };
if (secret === undefined) writeSync(1, JSON.stringify({ secret: await keytar.getPassword(service, account) }));
else {
  await keytar.setPassword(service, account, secret);
  writeSync(1, JSON.stringify({ secret: await keytar.getPassword(service, account) })); // a keychain that does not give it back has not stored it
}
