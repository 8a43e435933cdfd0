import { AgentError, type AgentStatus, protocolVersion } from '@kms-agent/protocol';
import { type Caller, formatUnit, serviceOf } from '../caller/identity.ts';
import { defaultAlias } from '../keyring/alias-book.ts';
import { serviceAliasOf } from '../keyring/creation.ts';
import { findUserName } from '../os/users.ts';
import type { Handlers, OperationsContext } from './index.ts';

type AgentMethods = 'metrics' | 'status' | 'whoAmI' | 'unlock' | 'lock' | 'confirmClock' | 'listKeyslots' | 'addKeyslot' | 'removeKeyslot' | 'rpc.discover';

const formatTime = (timeMs: number): string => new Date(timeMs).toISOString();

function describeStatus({ agent, version, audit, counts, protections, warnings }: OperationsContext, administrator: boolean): AgentStatus {
  const basics = { version, protocolVersion, state: agent.state };
  if (!administrator) return basics;
  const { unlockTime } = agent;
  return {
    ...basics,
    startTime: formatTime(agent.startTime),
    ...(unlockTime === undefined ? {} : { unlockTime: formatTime(unlockTime) }),
    providers: agent.providers.map((provider) => provider.status()),
    protections: protections(),
    counts: { keys: agent.keyCount, ...counts() },
    audit: { state: audit.health, seq: audit.seq },
    warnings: [...warnings(), ...agent.warnings],
  };
}

/** The agent itself: how it is, who calls, and the ways into the vault. */
export function agentOperations(context: OperationsContext): Pick<Handlers, AgentMethods> {
  const { agent, authority } = context;
  const status = (caller: Caller): AgentStatus => describeStatus(context, authority.isAdministrator(caller));
  return {
    status,
    whoAmI: (caller) => {
      const { uid, gid, groups, pid } = caller;
      const user = findUserName(uid);
      const unit = caller.process.unit();
      const exe = caller.process.executablePath();
      const known = {
        ...(user === undefined ? {} : { user }),
        ...(pid === undefined ? {} : { pid }),
        ...(exe === undefined ? {} : { exe }),
        ...(unit === undefined || unit === 'unknown' ? {} : { unit: formatUnit(unit) }),
      };
      const service = serviceOf(caller);
      const defaultKey = service === undefined || service === 'unknown' ? defaultAlias : serviceAliasOf(service.name);
      return { uid, ...known, gid, groups: [...groups], administrator: authority.isAdministrator(caller), defaultKey };
    },
    unlock: async (caller, { keyslotId, passphrase, token, pin }) => {
      const slot = keyslotId === undefined ? {} : { keyslotId };
      if (token !== undefined && passphrase !== undefined)
        throw new AgentError('ERR_INVALID_PARAMS', { path: '/token', reason: 'does not go with a passphrase' });
      if (token === undefined && pin !== undefined) throw new AgentError('ERR_INVALID_PARAMS', { path: '/pin', reason: 'is the PIN of a token; name it' });
      if (token !== undefined) await agent.ways.logIn(caller.uid, { token, ...slot, ...(pin === undefined ? {} : { pin }) });
      else if (passphrase === undefined) await agent.ways.unlockWithToken(keyslotId);
      else await agent.ways.unlock(caller.uid, { passphrase, ...slot });
      return status(caller);
    },
    lock: async (caller) => {
      await agent.lock();
      return status(caller);
    },
    confirmClock: (caller) => {
      agent.confirmClock();
      return status(caller);
    },
    metrics: async () => await context.metrics(),
    listKeyslots: () => ({ keyslots: agent.vault.listKeyslots() }),
    addKeyslot: async (caller, params) => await agent.ways.addKeyslot(caller.uid, params),
    removeKeyslot: async (caller, params) => {
      await agent.ways.removeKeyslot(caller.uid, params);
      return {};
    },
    'rpc.discover': () => context.document(),
  };
}
