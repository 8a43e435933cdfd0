import type { AgentStatus, ProviderStatus } from '@kms-agent/protocol';
import { type Finding, wrong } from './finding.ts';

function describe({ hsm, error = 'is well' }: ProviderStatus): string {
  const { label, serial, firmware, mechanisms = [], sessions, openSessions = 0, recoveries, lastError, lastErrorTime } = hsm ?? { sessions: 0, recoveries: 0 };
  const who = label === undefined ? [] : [`${label}, serial ${serial}, firmware ${firmware}`, `does ${mechanisms.join(', ')}`];
  const was = lastError === undefined ? [] : [`last error ${lastErrorTime ?? ''}: ${lastError}`];
  return [error, ...who, `sessions: ${openSessions} open, ${sessions} work side by side`, `recovered ${recoveries} times`, ...was].join('; ');
}

/** How a running agent finds its tokens; while it is locked it has none. What is only shown to administrators is not there for others. */
export function findAgentTokens({ state: agentState, providers = [] }: AgentStatus): Finding[] {
  const tokens = providers.filter(({ hsm }) => hsm !== undefined);
  return tokens.map((token) => {
    const ok = token.state === 'ok' || agentState !== 'UNLOCKED';
    const detail = ok ? describe(token) : wrong(describe(token), "look into the agent's log; kms unlock --token logs in again").message;
    return { name: `the agent's token ${token.name}`, ok, detail };
  });
}
