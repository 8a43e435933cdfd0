import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentClient } from '@kms-agent/client';
import { passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { makeVaultWithKeys } from '../kit/many-keys.ts';
import { compare, type Line } from './row.ts';
import { runInterleaved, type Thoroughness } from './run-load.ts';
import type { LoadResult, WorkSpec } from './work/work.ts';

/** Resident memory of a process now, in MiB (proc(5), VmRSS). */
export function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** What a connection costs the agent that only stands there, after one request. */
export async function idleConnections(agent: TestAgent, count: number): Promise<Line[]> {
  const pid = agent.child.pid ?? 0;
  const ask = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'whoAmI' })}\n`;
  const open = async (): Promise<ReturnType<typeof connect>> => {
    const socket = connect(agent.socketPath);
    socket.write(ask);
    await once(socket, 'data');
    return socket;
  };
  const warm = await Promise.all(Array.from({ length: 100 }, open)); // memory that the first ones make the agent take stays
  await delay(500);
  const before = residentMiB(pid);
  const sockets = await Promise.all(Array.from({ length: count }, open));
  await delay(500);
  const kib = ((residentMiB(pid) - before) * 1024) / count;
  for (const socket of [...warm, ...sockets]) socket.destroy();
  return [{ row: 'memory', name: `an idle connection, one of ${count.toLocaleString('en-US')}`, figures: { KiB: kib }, verdicts: [] }];
}

/** Very many connections that each ask now and then, beside one that asks as much alone. */
export async function manyConnections(agent: TestAgent, keyId: string, thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  const [row, connections] = ['1,000 connections, each one request a second', 1000];
  const work: WorkSpec = { kind: 'agent', socketPath: agent.socketPath, operation: 'advanceEncrypt', keyId, bytes: 1024 };
  const [many, one] = ['kms-agent, 1,000 connections', 'kms-agent, one connection with 1,000 a second'];
  const all = await runInterleaved(
    [
      { name: many, load: { work, connections, inFlight: 1, ratePerSecond: 1 }, mayFail: true },
      { name: one, load: { work, connections: 1, inFlight: 1, ratePerSecond: connections } },
    ],
    { ...thoroughness, seconds: Math.max(3, thoroughness.seconds) },
    onDone,
  );
  const [ours, alone] = [need(all, many), need(all, one)];
  const verdicts = [compare(ours.p99Us, alone.p99Us, one, { atMost: 3 }), { against: 'errors', ratio: ours.errors, reach: '0', reached: ours.errors === 0 }];
  return [
    { row, name: many, figures: figuresOf(ours), verdicts },
    { row, name: one, figures: figuresOf(alone), verdicts: [] },
  ];
}

function need(all: ReadonlyMap<string, LoadResult>, name: string): LoadResult {
  const result = all.get(name);
  if (!result) throw new Error(`${name} was not measured`);
  return result;
}

const figuresOf = ({ p50Us, p99Us, errors }: LoadResult): Line['figures'] => ({ 'p50 µs': p50Us, 'p99 µs': p99Us, errors });

interface Opened {
  readonly agent: TestAgent;
  readonly keyId: string;
  readonly unlockMs: number;
  readonly memoryMiB: number;
}

/** Agents on vaults of different sizes: the time of the unlock without that of the passphrase, memory, and a description of one key. */
export async function manyKeys(stack: AsyncDisposableStack, counts: readonly number[], thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  const opened: Opened[] = [];
  for (const count of counts) opened.push(await openVaultOf(stack, count));
  const variants = opened.map(({ agent, keyId }, index) => ({
    name: nameOf(counts[index] ?? 0),
    load: { work: { kind: 'agent', socketPath: agent.socketPath, operation: 'describeKey', keyId, bytes: 0 } as const, connections: 1, inFlight: 1 },
  }));
  const all = await runInterleaved(variants, thoroughness, onDone);
  const fewest = need(all, nameOf(counts[0] ?? 0));
  const [first, last] = [opened[0], opened.at(-1)];
  const bytesPerKey = (((last?.memoryMiB ?? 0) - (first?.memoryMiB ?? 0)) * 2 ** 20) / ((counts.at(-1) ?? 0) - (counts[0] ?? 0));
  const perKey = { row: 'memory', name: `a key, one of ${nameOf(counts.at(-1) ?? 0)}`, figures: { bytes: bytesPerKey }, verdicts: [] };
  const lines = opened.map(({ unlockMs, memoryMiB }, index) => {
    const name = nameOf(counts[index] ?? 0);
    const figures = { 'unlock ms': unlockMs, 'memory MiB': memoryMiB, 'p50 µs of describeKey': need(all, name).p50Us };
    const verdicts = [
      compare(unlockMs, 2000, '2 s to unlock', { atMost: 1 }),
      compare(memoryMiB, 300e6 / 2 ** 20, '300 MB of memory', { atMost: 1 }),
      compare(need(all, name).p50Us, fewest.p50Us, `describeKey with ${counts[0]} keys`, { atMost: 1.2 }),
    ];
    return { row: 'a vault of very many keys', name, figures, verdicts: index === counts.length - 1 ? verdicts : [] };
  });
  return [...lines, perKey];
}

const nameOf = (count: number): string => `${count.toLocaleString('en-US')} keys`;

async function openVaultOf(stack: AsyncDisposableStack, count: number): Promise<Opened> {
  const folder = stack.use(new TempFolder());
  const ids = await makeVaultWithKeys(folder.join('vault'), count);
  const agent = stack.use(await TestAgent.serve(folder));
  const kms: AgentClient = await agent.client();
  const started = performance.now();
  await kms.unlock({ passphrase });
  await kms.describeKey({ keyId: ids.at(-1) ?? '' });
  return { agent, keyId: ids.at(-1) ?? '', unlockMs: performance.now() - started, memoryMiB: residentMiB(agent.child.pid ?? 0) };
}
