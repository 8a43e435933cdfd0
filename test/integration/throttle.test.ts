import { chmodSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { utf8 } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { initByCommand, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { asRoot, type PeerAnswer, TestPeer } from '../kit/peer.ts';

const guesser = 4711;
const owner = 4712;
/** More attempts of one uid than may wait. */
const parallel = 12;

/** An agent, locked, that several users administer. */
async function serveSeveral(folder: TempFolder): Promise<TestAgent> {
  chmodSync(folder.path, 0o755);
  const administrators = ['uid:0', `uid:${guesser}`, `uid:${owner}`];
  writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666, administrators }), { mode: 0o600 });
  await initByCommand(folder);
  return await TestAgent.serve(folder, '--config', folder.join('config.json'));
}

const dataOf = ({ error }: PeerAnswer): Record<string, unknown> => error?.data ?? {};

test.skipIf(!asRoot)(
  'wrong passphrases of one user, as many at once as it likes: they are one attempt, and another user unlocks and signs beside them (needs root)',
  async () => {
    using folder = new TempFolder();
    await using agent = await serveSeveral(folder);
    const guessers = await Promise.all(Array.from({ length: parallel }, () => TestPeer.start(agent.socketPath, { uid: guesser })));
    await using mine = await TestPeer.start(agent.socketPath, { uid: owner });
    const guesses = guessers.map((peer, index) => peer.ask('unlock', { passphrase: `guess ${index}` }));
    expect(await mine.outcome('unlock', { passphrase })).toBe('ok'); // asked while the guesses wait
    const { result } = await mine.ask('createKey', { keySpec: 'EC_P256' });
    const answers = (await Promise.all(guesses)).map(dataOf);
    const codes = answers.map(({ code }) => code);
    expect(codes.filter((code) => code === 'ERR_UNLOCK_FAILED')).toHaveLength(9); // one that ran, and eight that waited for it
    expect(codes.filter((code) => code === 'ERR_BUSY')).toHaveLength(parallel - 9);
    const tried = answers.filter(({ code, hint }) => code === 'ERR_UNLOCK_FAILED' && hint === undefined);
    expect(tried).toEqual([expect.objectContaining({ retryAfterMs: 1000 })]);
    const [one] = guessers;
    if (!one) throw new Error('there is no guesser');
    await delay(1050);
    expect(dataOf(await one.ask('unlock', { passphrase: 'guess again' }))).toMatchObject({ code: 'ERR_UNLOCK_FAILED', retryAfterMs: 2000 });
    const early = dataOf(await one.ask('unlock', { passphrase }));
    expect(early).toMatchObject({ code: 'ERR_UNLOCK_FAILED', hint: expect.stringContaining('Too many') }); // the right one, too early
    expect(early['retryAfterMs']).toBeLessThanOrEqual(2000);
    expect(await mine.outcome('sign', { keyId: result?.['keyId'], message: Buffer.from(utf8('mine')).toString('base64') })).toBe('ok');
    expect(await mine.outcome('unlock', { passphrase })).toBe('ok');
    await delay(2050);
    expect(await one.outcome('unlock', { passphrase })).toBe('ok');
    expect(dataOf(await one.ask('unlock', { passphrase: 'guess' }))).toMatchObject({ retryAfterMs: 1000 }); // the right one began it anew
    await Promise.all(guessers.map((peer) => peer[Symbol.asyncDispose]()));
  },
);

test.skipIf(!asRoot)('a user who goes on guessing: another one unlocks and locks as it likes (needs root)', async () => {
  using folder = new TempFolder();
  await using agent = await serveSeveral(folder);
  await using mine = await TestPeer.start(agent.socketPath, { uid: owner });
  const guessers = await Promise.all(Array.from({ length: parallel }, () => TestPeer.start(agent.socketPath, { uid: guesser })));
  let isGuessing = true;
  const guessing = guessers.map(async (peer) => {
    while (isGuessing) await peer.ask('unlock', { passphrase: 'guess' });
  });
  const outcomes: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    outcomes.push(await mine.outcome('unlock', { passphrase }), await mine.outcome('lock'));
  }
  isGuessing = false;
  await Promise.all(guessing);
  await Promise.all(guessers.map((peer) => peer[Symbol.asyncDispose]()));
  expect(new Set(outcomes)).toEqual(new Set(['ok']));
});
