import { readdirSync, readFileSync } from 'node:fs';
import type { AgentClient } from '@kms-agent/client';

/** How an agent was at a time. */
export interface Sample {
  readonly minute: number;
  readonly residentMiB: number;
  readonly heapMiB: number;
  /** Of the agent and of its helpers together. */
  readonly descriptors: number;
  readonly helpersMiB: number;
}

const mib = 1_048_576;

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** Helpers that hold modules of tokens; none that has just ended. */
function helpersOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
}

function orNothing<T>(read: () => T, nothing: T): T {
  try {
    return read();
  } catch {
    return nothing; // a process that has ended meanwhile, or one that only root may look at
  }
}

/** Looks at an agent by its own figures, and at its helpers from outside. */
export async function takeSample(kms: AgentClient, pid: number, minute: number): Promise<Sample> {
  const { text } = await kms.call('metrics', {});
  const figure = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
  const helpers = orNothing(() => helpersOf(pid), []);
  return {
    minute,
    residentMiB: figure('process_resident_memory_bytes') / mib,
    heapMiB: (figure('nodejs_heap_size_used_bytes') + figure('nodejs_external_memory_bytes')) / mib,
    descriptors: helpers.reduce((sum, helper) => sum + orNothing(() => readdirSync(`/proc/${helper}/fd`).length, 0), figure('process_open_fds')),
    helpersMiB: helpers.reduce((sum, helper) => sum + orNothing(() => residentMiB(helper), 0), 0),
  };
}

/** Least value of each of so many parts: what stays when garbage is gone. */
export function floors(values: readonly number[], parts: number): number[] {
  const length = Math.ceil(values.length / parts);
  return Array.from({ length: parts }, (_, part) => Math.min(...values.slice(part * length, (part + 1) * length))).filter(Number.isFinite);
}

/** Slope of the straight line through values at even distances (least squares), per step. */
export function slopeOf(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const middle = (values.length - 1) / 2;
  const [over, under] = values.reduce(([a, b], value, index) => [a + (index - middle) * (value - mean), b + (index - middle) ** 2], [0, 0]);
  return under === 0 ? 0 : over / under;
}

const parts = 8;
/** MiB over the whole time that a line may rise without a word: what keys that were made and tables that settled take. */
const freeMiB = 24;

/**
 * Whether memory grows steadily: a line through the least values of eight parts rises by more than a tenth of what there was and 24 MiB,
 * and nearly every part lies above the one before. The first part, in which everything is made that stays, does not count.
 */
export function growsSteadily(values: readonly number[]): boolean {
  const low = floors(values, parts).slice(1);
  const rise = slopeOf(low) * (low.length - 1);
  const steps = low.slice(1).filter((value, index) => value > (low[index] ?? value)).length;
  return low.length >= parts - 2 && rise > freeMiB + 0.1 * (low[0] ?? 0) && steps >= low.length - 2;
}

/** A value that so many of a hundred do not exceed. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(Math.floor((sorted.length * percent) / 100), sorted.length - 1)] ?? Number.NaN;
}
