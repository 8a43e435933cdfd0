import { AgentError } from '@kms-agent/protocol';
import { walkTo } from '../os/trust.ts';
import { findUserId } from '../os/users.ts';
import { serviceUser, systemPlaces } from './install/host.ts';
import { succeeds } from './install/run.ts';

/** Whether a command ends well as the user of the system's agent, with all its groups. */
const succeedsAsUser = (...command: string[]): boolean => succeeds('setpriv', `--reuid=${serviceUser}`, `--regid=${serviceUser}`, '--init-groups', ...command);

/** Whether that user has a right to a place, by all its groups and whatever else the kernel asks (test(1)). */
const may = (right: 'r' | 'x', place: string): boolean => succeedsAsUser('test', `-${right}`, place);

/** The user of the system's agent, where root asks about its settings: what is that user's own, the agent takes. Undefined for other files and for others. */
export function findReader(config: string): number | undefined {
  return config === systemPlaces.configFile && process.geteuid?.() === 0 ? findUserId(serviceUser) : undefined;
}

const hidden = (right: 'r' | 'x', place: string): AgentError =>
  new AgentError('ERR_STATE_CONFLICT', {
    hint: `The user ${serviceUser}, who runs the agent, may not ${right === 'r' ? 'read' : 'search'} ${place}; run: chmod a+${right} ${place}`,
  });

/**
 * Makes sure that the system's agent can read its settings: root, who asks, can read everything. Of other files, for others, and where root cannot become that user, it says nothing.
 * @throws AgentError `ERR_STATE_CONFLICT` that names what keeps it from them.
 */
export function checkServiceUserReads(config: string): void {
  if (findReader(config) === undefined || !succeedsAsUser('true')) return; // without CAP_SETUID each question would be answered with no
  const file = walkTo(config, (place, stat) => {
    if (stat.isDirectory() && !may('x', place)) throw hidden('x', place);
  });
  if (!may('r', file)) throw hidden('r', file);
}
