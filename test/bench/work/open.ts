import { openAgent } from './agent.ts';
import { openCrypto } from './crypto.ts';
import { openEcho } from './echo.ts';
import { openFrames } from './frames.ts';
import { openGpgAgent } from './gpg-agent.ts';
import { openPkcs11 } from './pkcs11.ts';
import { openSshAgent } from './ssh-agent.ts';
import type { Session, WorkSpec } from './work.ts';

/** Connects to whom the work is asked of. */
export async function open(work: WorkSpec): Promise<Session> {
  switch (work.kind) {
    case 'agent':
      return await openAgent(work);
    case 'frames':
      return await openFrames(work);
    case 'echo':
      return await openEcho(work);
    case 'ssh-agent':
      return await openSshAgent(work);
    case 'gpg-agent':
      return await openGpgAgent(work);
    case 'crypto':
      return openCrypto(work);
    case 'pkcs11':
      return await openPkcs11(work);
  }
}
