import { AgentError, type AgentStatus, makeOpenRpcDocument, protocolVersion } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';
import { defaultAlias } from '../keyring/alias-book.ts';
import { serviceAliasOf } from '../keyring/creation.ts';
import { findUserName } from '../os/users.ts';
import type { Handlers, OperationsContext } from './index.ts';

type AgentMethods = 'status' | 'whoAmI' | 'unlock' | 'lock' | 'confirmClock' | 'listKeyslots' | 'addKeyslot' | 'removeKeyslot' | 'rpc.discover';

const formatTime = (timeMs: number): string => new Date(timeMs).toISOString();

function describeStatus({ agent, version, counts, protections, warnings }: OperationsContext, administrator: boolean): AgentStatus {
  const basics = { version, protocolVersion, state: agent.state };
  if (!administrator) return basics;
  const { unlockTime } = agent;
  return {
    ...basics,
    startTime: formatTime(agent.startTime),
    ...(unlockTime === undefined ? {} : { unlockTime: formatTime(unlockTime) }),
    providers: agent.providers.map(({ name, kind }) => ({ name, kind, state: 'ok' })),
    protections: protections(),
    counts: { keys: agent.keyCount, ...counts() },
    warnings: [...warnings(), ...agent.warnings],
  };
}

/** The agent itself: how it is, who calls, and the ways into the vault. */
export function agentOperations(context: OperationsContext): Pick<Handlers, AgentMethods> {
  const { agent, isAdministrator } = context;
  const status = (caller: Caller): AgentStatus => describeStatus(context, isAdministrator(caller));
  const document = makeOpenRpcDocument(context.version);
  return {
    status,
    whoAmI: (caller) => {
      const { uid, gid, groups, pid } = caller;
      const user = findUserName(uid);
      const known = { ...(user === undefined ? {} : { user }), ...(pid === undefined ? {} : { pid }) };
      const service = caller.service();
      const defaultKey = service === undefined ? defaultAlias : serviceAliasOf(service);
      return { uid, ...known, gid, groups: [...groups], administrator: isAdministrator(caller), defaultKey };
    },
    unlock: async (caller, { keyslotId, passphrase, token, pin }) => {
      if (token !== undefined || pin !== undefined) throw new AgentError('ERR_UNSUPPORTED_OPERATION', { hint: 'This agent has no token.' });
      if (passphrase === undefined)
        throw new AgentError('ERR_UNLOCK_FAILED', { hint: 'No keyslot opens without a person; give its passphrase or recovery code.' });
      await agent.unlock(caller.uid, { passphrase, ...(keyslotId === undefined ? {} : { keyslotId }) });
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
    listKeyslots: () => ({ keyslots: agent.vault.listKeyslots() }),
    addKeyslot: async (caller, params) => await agent.prove(caller.uid, () => agent.vault.addKeyslot(params)),
    removeKeyslot: async (caller, params) => {
      await agent.prove(caller.uid, () => agent.vault.removeKeyslot(params));
      return {};
    },
    'rpc.discover': () => document,
  };
}
