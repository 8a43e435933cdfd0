import { AgentError } from '@kms-agent/protocol';
import { walkTo } from '../os/trust.ts';
import { findUserId } from '../os/users.ts';
import { serviceUser, systemPlaces } from './install/host.ts';
import { succeeds } from './install/run.ts';

/** Whether the user of the system's agent has a right to a place, by all its groups and whatever else the kernel asks (test(1)). */
const may = (right: 'r' | 'x', place: string): boolean =>
  succeeds('setpriv', `--reuid=${serviceUser}`, `--regid=${serviceUser}`, '--init-groups', 'test', `-${right}`, place);

const hidden = (right: 'r' | 'x', place: string): AgentError =>
  new AgentError('ERR_STATE_CONFLICT', {
    hint: `The user ${serviceUser}, who runs the agent, may not ${right === 'r' ? 'read' : 'search'} ${place}; run: chmod a+${right} ${place}`,
  });

/**
 * Makes sure that the system's agent can read its settings: root, who asks, can read everything. Of other files and for others it says nothing.
 * @throws AgentError `ERR_STATE_CONFLICT` that names what keeps it from them.
 */
export function checkServiceUserReads(config: string): void {
  if (config !== systemPlaces.configFile || process.geteuid?.() !== 0 || findUserId(serviceUser) === undefined) return;
  const file = walkTo(config, (place, stat) => {
    if (stat.isDirectory() && !may('x', place)) throw hidden('x', place);
  });
  if (!may('r', file)) throw hidden('r', file);
}
