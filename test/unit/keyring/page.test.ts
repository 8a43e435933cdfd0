import { describe, expect, test } from 'vitest';
import { takePage } from '../../../daemon/src/keyring/page.ts';
import { PageTokens } from '../../../daemon/src/keyring/page-tokens.ts';
import { SortedIds } from '../../../daemon/src/keyring/sorted-ids.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';

const makeTokens = async (): Promise<PageTokens> => new PageTokens((await Vault.create({ clock: () => 0, slots: [] })).vault);
const ids = SortedIds.of(Array.from({ length: 1000 }, (_, index) => `id-${String(index).padStart(4, '0')}`));

/** Occupies the processor. */
function burn(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

describe('takePage', () => {
  test('a page that takes long: others have their turn, and ids that come and go meanwhile do not disturb it', async () => {
    const changing = SortedIds.of(Array.from({ length: 200 }, (_, index) => `id-${String(index).padStart(4, '0')}`));
    let turns = 0;
    const disturb = setInterval(() => {
      turns += 1;
      changing.delete('id-0000');
      changing.add(`id-00000-${turns}`);
    }, 0);
    const seen: string[] = [];
    const read = (id: string): undefined => {
      burn(0.5);
      seen.push(id);
    };
    await takePage({ ids: changing, request: {}, list: 'all', tokens: await makeTokens(), maxBytes: 100_000, read }).finally(() => clearInterval(disturb));
    expect(turns).toBeGreaterThan(5);
    expect(seen.filter((id) => id.length === 7)).toEqual(Array.from({ length: 200 }, (_, index) => `id-${String(index).padStart(4, '0')}`));
  });

  test('the token: good for the same filters in any order of names, for no others, and it does not show where it stands', async () => {
    const tokens = await makeTokens();
    const page = (list: unknown, nextToken?: string): ReturnType<typeof takePage<string>> =>
      takePage({ ids, request: { limit: 10, ...(nextToken === undefined ? {} : { nextToken }) }, list, tokens, maxBytes: 100_000, read: (id) => id });
    const { nextToken } = await page(['keys', { tags: { a: '1', b: '2' }, keySpec: ['AES_256'] }]);
    expect((await page(['keys', { keySpec: ['AES_256'], tags: { b: '2', a: '1' } }], nextToken)).items[0]).toBe('id-0010');
    for (const other of [
      ['keys', { tags: { a: '1', b: '3' }, keySpec: ['AES_256'] }],
      ['aliases', null],
    ])
      await expect(page(other, nextToken)).rejects.toMatchObject({ details: { path: '/nextToken' } });
    await expect(page(['keys', null], 'bm90IGEgdG9rZW4')).rejects.toMatchObject({ details: { path: '/nextToken' } });
    expect(Buffer.from(nextToken ?? '', 'base64url').toString('latin1')).not.toContain('id-0009');
  });
});
