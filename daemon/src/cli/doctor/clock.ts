import { existsSync } from 'node:fs';
import type { AgentStatus } from '@kms-agent/protocol';
import { runCommand } from '../install/run.ts';
import { wrong } from './finding.ts';

/** Whether an agent believes its clock: while it does not, nothing is destroyed and nothing expires. @param status - as an administrator hears it. */
export function lookAtClock({ state, warnings = [] }: Pick<AgentStatus, 'state' | 'warnings'>): string {
  const doubts = warnings.filter((warning) => warning.includes('confirm-clock'));
  if (doubts.length > 0)
    throw wrong(
      doubts.join(' ').replace(/\.$/, ''),
      'see whether date tells the right time, and put it right; if it does, and what is due may go for good, kms confirm-clock',
    );
  return `the agent believes it${state === 'UNLOCKED' ? '' : '; what the vault has seen of time is known once it is unlocked'}`;
}

/** There where systemd is the first process (sd_booted(3)). */
const bootedMark = '/run/systemd/system';

const askTime = (): string | undefined =>
  existsSync(bootedMark) ? runCommand('timedatectl', 'show', '--property=NTPSynchronized', '--property=NTP', '--property=CanNTP') : undefined;

/**
 * Whether something keeps the clock of the system right (org.freedesktop.timedate1(5)).
 * @param ask - answers what timedatectl shows; undefined where systemd does not run.
 */
export function lookAtSystemClock(ask: () => string | undefined = askTime): string {
  let shown: string | undefined;
  try {
    shown = ask();
  } catch (error) {
    return `whether it is synchronised is not known: ${error instanceof Error ? error.message : String(error)}`; // timedatectl is missing, or has no bus
  }
  if (shown === undefined) return 'whether it is synchronised is not known: systemd does not run here';
  const says = (line: string): boolean => shown.split('\n').includes(line);
  if (says('NTPSynchronized=yes')) return 'is synchronised, says timedatectl';
  const start = says('CanNTP=yes') ? 'timedatectl set-ntp true' : 'install a time service, such as systemd-timesyncd or chrony';
  throw wrong(
    'it is not synchronised: nothing keeps right what rotation and expiry of keys go by',
    says('NTP=yes') ? 'timedatectl timesync-status, or the log of the time service, says which server does not answer' : start,
  );
}
