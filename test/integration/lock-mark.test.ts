import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { initSelfOpening } from '../kit/credential.ts';
import { NotifySocket } from '../kit/notify-socket.ts';
import { asRoot } from '../kit/peer.ts';

const hasPython = existsSync('/usr/bin/python3');
const stateOf = async (agent: TestAgent): Promise<string> => (await (await agent.client()).status()).state;

describe('the mark of a lock', () => {
  test.each<[name: string, make: (path: string) => void, isLeft: boolean]>([
    ['empty', (path) => writeFileSync(path, ''), false],
    ['cut off', (path) => writeFileSync(path, '018f3c5e-1b2a-4c3d'), false],
    ['something else', (path) => writeFileSync(path, 'yes\n'), false],
    ['a pipe', (path) => void execFileSync('mkfifo', [path]), false],
    ['a folder', (path) => mkdirSync(path), true],
  ])('that is %s: counts as a lock and is named in the log; a person unlocks, and that ends it unless it is a folder', async (_name, make, isLeft) => {
    using folder = new TempFolder();
    const env = await initSelfOpening(folder);
    const path = folder.join('vault', 'locked');
    make(path);
    {
      await using agent = await TestAgent.serve(folder, { env });
      expect(await stateOf(agent)).toBe('LOCKED');
      const log = (): string => agent.startLog + agent.log;
      await expect.poll(log).toContain(`stays locked: ${path} is not as an agent writes it`);
      await (await agent.client()).unlock({ passphrase });
      expect(existsSync(path)).toBe(isLeft);
      if (isLeft) await expect.poll(log).toContain('an agent that is started again leaves it locked');
    }
    await using again = await TestAgent.serve(folder, { env });
    expect(await stateOf(again)).toBe(isLeft ? 'LOCKED' : 'UNLOCKED');
    await (await again.client()).lock();
    expect(again.log).not.toContain('it could not be noted that the vault was locked'); // a folder says it as well
  });

  test.skipIf(!asRoot)('on a disk that is full: what was locked stays locked in the next agent (needs root, for a tmpfs)', async () => {
    using folder = new TempFolder();
    mkdirSync(folder.join('vault'), { mode: 0o700 });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=700,size=2m', 'tmpfs', folder.join('vault')]);
    try {
      const env = await initSelfOpening(folder);
      const filler = folder.join('vault', 'filler');
      {
        await using agent = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'), { env });
        expect(await stateOf(agent)).toBe('UNLOCKED');
        expect(() => {
          for (;;) appendFileSync(filler, Buffer.alloc(1024));
        }).toThrow(/ENOSPC/);
        await (await agent.client()).lock();
        await agent.end('SIGKILL');
      }
      rmSync(filler);
      await using agent = await TestAgent.serve(folder, '--audit-dir', folder.join('audit'), { env });
      expect(await stateOf(agent)).toBe('LOCKED');
    } finally {
      execFileSync('umount', ['-l', folder.join('vault')]);
    }
  });

  test.skipIf(!hasPython)('the status for the service manager says why the credential was not tried, until somebody unlocks (needs python3)', async () => {
    using folder = new TempFolder();
    const env = await initSelfOpening(folder);
    {
      await using agent = await TestAgent.serve(folder, { env });
      await (await agent.client()).lock();
    }
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using agent = await TestAgent.serve(folder, { env: { ...env, NOTIFY_SOCKET: manager.name } });
    await manager.wait(/^STATUS=locked, no keys in memory: it was locked before this start, so that no keyslot was tried without a person; run kms unlock$/);
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    await manager.wait(/^STATUS=unlocked, 1 key$/);
    await kms.lock();
    await manager.wait(/^STATUS=locked, no keys in memory; run kms unlock$/);
  });
});
