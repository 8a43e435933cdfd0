import { readFileSync } from 'node:fs';

/** What tells this installation from others (machine-id(5)); undefined where there is nothing of the kind. */
export function readMachineId(): string | undefined {
  try {
    const text = readFileSync('/etc/machine-id', 'utf8').trim();
    return /^[0-9a-f]{32}$/.test(text) ? text : undefined;
  } catch {
    return undefined; // ENOENT: a container often has none
  }
}

/** Bit of CAP_SYS_PTRACE (<linux/capability.h>). */
const capSysPtrace = 19n;

/** Whether this process has a capability that lets it look at those of other users (capabilities(7)). */
function hasPtraceCapability(): boolean {
  const text = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return text !== undefined && ((BigInt(`0x${text}`) >> capSysPtrace) & 1n) === 1n;
}

/** Whether the executables of callers can be read: with the capability those of all, without it those of the agent's own user. */
export function canReadExecutables(onlyOwnUser: boolean): boolean {
  return onlyOwnUser || hasPtraceCapability();
}
