import { readFileSync } from 'node:fs';

/** What the kernel says of this process; its files stay readable when the process is not dumpable (proc(5)). */
const status = (): string => readFileSync('/proc/self/status', 'utf8');

/** A field of /proc/self/status, for example `VmLck`; undefined where this kernel has none. */
export function readStatusField(name: string): string | undefined {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status())?.[1];
}

/** Soft and hard limit, in the limit's own unit; Infinity for none (getrlimit(2)). */
export interface Limit {
  readonly soft: number;
  readonly hard: number;
}

const parse = (text: string | undefined): number => (text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text));

/** A row of /proc/self/limits by its name, for example `Max core file size`. @throws TypeError when this kernel has none. */
export function readLimit(name: string): Limit {
  const [, soft, hard] = new RegExp(`^${name}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  if (soft === undefined) throw new TypeError(`/proc/self/limits has no ${name}`);
  return { soft: parse(soft), hard: parse(hard) };
}

/** Who may attach to a process beside root, by the Yama security module: 0 everybody of its user, 1 its ancestors, 2 and 3 nobody. 0 where there is none. */
export function readPtraceScope(): number {
  try {
    return Number(readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 0;
    throw error;
  }
}
