import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Expected, Holder } from '../kit/holder.ts';
import { type Counts, canReadMemory, forms, type Hits, MemoryScan, processTree } from '../kit/memory.ts';
import { hasSoftHsm } from '../kit/softhsm.ts';

const none: Counts = { bytes: 0, reversed: 0, hex: 0, base64: 0, utf16: 0 };
const idleLockMs = 8000;

/** Waits until a lock that nobody waits for is over: the time of the unlock goes last. */
async function untilLocked(holder: Holder): Promise<void> {
  while ((await holder.kms.status()).unlockTime !== undefined) await delay(50);
}

/** The ways to lock, each after its agent was unlocked and used. */
const ways: Readonly<Record<string, (holder: Holder) => Promise<void>>> = {
  lock: async ({ kms }) => void (await kms.lock()),
  SIGUSR2: async (holder) => {
    holder.kill('SIGUSR2');
    await untilLocked(holder);
  },
  'idle lock': untilLocked,
};

/** Rows for a person: a name up to its colon is one row. */
const rowOf = (name: string): string => name.split(':')[0] ?? name;
const table = new Map<string, Map<string, Counts>>();

function addToTable(column: string, hits: Hits): void {
  for (const [name, counts] of hits) {
    const row = table.get(rowOf(name)) ?? new Map<string, Counts>();
    table.set(rowOf(name), row);
    const before = row.get(column) ?? none;
    row.set(column, Object.fromEntries(forms.map((form) => [form, before[form] + counts[form]])) as Counts); // all forms
  }
}

const shown = (counts: Counts): string => {
  const found = forms.filter((form) => counts[form] > 0).map((form) => `${form} ${counts[form]}`);
  return found.join(', ') || '0';
};

function printTable(): void {
  const columns = [...new Set([...table.values()].flatMap((row) => [...row.keys()]))];
  const lines = [
    ['pieces of 16 bytes in memory', ...columns],
    ...[...table].map(([name, row]) => [name, ...columns.map((column) => shown(row.get(column) ?? none))]),
  ];
  const widths = lines[0]?.map((_, at) => Math.max(...lines.map((line) => line[at]?.length ?? 0))) ?? [];
  console.info(
    lines
      .map((line) =>
        line
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd(),
      )
      .join('\n'),
  );
}

/** While it is unlocked: that the scan finds what is there, and nothing that passes. */
function expectBefore(secrets: readonly Expected[], hits: Hits): void {
  for (const { name, before } of secrets) {
    const { bytes, reversed, hex, base64, utf16 } = hits.get(name) ?? none;
    if (before === 'held' || before === 'parsed') expect([name, bytes]).not.toEqual([name, 0]);
    if (before === 'parsed') expect([name, reversed]).not.toEqual([name, 0]);
    if (before === 'passing') expect([name, hits.get(name)]).toEqual([name, none]);
    // A key is never made text: only what came as JSON is.
    if (before !== 'dropped' && !name.startsWith('PIN')) expect([name, hex, base64, utf16]).toEqual([name, 0, 0, 0]);
  }
}

describe.skipIf(!canReadMemory || !hasSoftHsm)('memory, read from outside (needs root with CAP_SYS_PTRACE, and SoftHSM)', () => {
  let holder: Holder;
  beforeAll(async () => {
    holder = await Holder.make();
    await holder.start({ idleLockMs });
    using _awake = holder.stayAwake();
    await holder.unlock();
    await holder.makeUsedKeys();
  });
  afterAll(async () => {
    printTable();
    await holder[Symbol.asyncDispose]();
  });

  async function unlockAndUse(): Promise<Expected[]> {
    using _awake = holder.stayAwake();
    await holder.unlock();
    await holder.use();
    return await holder.secrets();
  }

  test.each(Object.keys(ways))(
    '%s: no AES key, private number, root or derived key or PIN is left, in the agent or a helper; each was found before',
    async (way) => {
      const secrets = await unlockAndUse();
      const scan = new MemoryScan(secrets);
      const processes = processTree(holder.pid);
      const before = scan.of(...processes);
      await ways[way]?.(holder);
      const left = processTree(holder.pid);
      const after = scan.of(...left);
      addToTable(`before ${way}`, before);
      addToTable(`after ${way}`, after);
      expect(processes.length).toBe(3); // the agent, and a helper for each token
      expectBefore(secrets, before);
      for (const { name, promised } of secrets) if (promised) expect([name, after.get(name)]).toEqual([name, none]);
      expect(left).toEqual([holder.pid]);
    },
  );

  test('deleteKeyMaterial: the key is gone when it is answered, without a lock', async () => {
    using _awake = holder.stayAwake();
    await unlockAndUse();
    const scan = new MemoryScan([{ name: 'imported', bytes: holder.imported }]);
    expect(scan.of(holder.pid).get('imported')?.bytes).toBeGreaterThan(0);
    await holder.deleteMaterial();
    expect(scan.of(holder.pid).get('imported')).toEqual(none);
    await holder.importMaterial();
  });

  test('unlockLifetime: when it is over, keys, what they are sealed under and what opens that are gone, without a lock; others are still there', async () => {
    using _awake = holder.stayAwake();
    const others = await unlockAndUse();
    const secrets = await holder.useLimitedKeys('25s');
    const scan = new MemoryScan(secrets);
    const other = new MemoryScan(others.filter(({ name }) => name === 'used AES_256'));
    const before = scan.of(holder.pid);
    for (const { name } of secrets) if (/^(wrapping|AES|private)/.test(name)) expect([name, before.get(name)?.bytes]).not.toEqual([name, 0]);
    while (holder.drops < 5) await delay(100);
    const after = scan.of(holder.pid);
    addToTable('before the end of unlockLifetime', before);
    addToTable('after the end of unlockLifetime', after);
    for (const { name } of secrets) expect([name, after.get(name)]).toEqual([name, none]);
    expect(other.of(holder.pid).get('used AES_256')?.bytes).toBeGreaterThan(0);
    expect((await holder.kms.status()).state).toBe('UNLOCKED');
  }, 120_000);
});
