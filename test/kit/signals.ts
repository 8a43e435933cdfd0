import { readFileSync } from 'node:fs';

/** Whether a signal is in one of a process's masks; the first signal is the lowest bit (proc(5)). */
function isIn(masks: readonly string[], pid: number, signal: number): boolean {
  const found = readFileSync(`/proc/${pid}/status`, 'utf8').matchAll(/^(Sig\w{3}):\s*([0-9a-f]+)$/gm);
  return [...found].some(([, name = '', mask]) => masks.includes(name) && ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n);
}

/** Whether a process would outlive a signal. */
export const outlives = (pid: number, signal: number): boolean => isIn(['SigBlk', 'SigIgn', 'SigCgt'], pid, signal);

/** Whether a process does something with a signal. */
export const catches = (pid: number, signal: number): boolean => isIn(['SigCgt'], pid, signal);
