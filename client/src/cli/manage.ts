import type { Command } from 'commander';
import { addAgentCommands } from './manage/agent.ts';
import { addAliasCommands } from './manage/alias.ts';
import { addAuditCommands } from './manage/audit.ts';
import { addKeyCommands } from './manage/key.ts';
import { addKeyslotCommands } from './manage/keyslot.ts';
import { addPolicyCommands } from './manage/policy.ts';

/** Adds what administrators do. */
export function addManagementCommands(program: Command): void {
  addAgentCommands(program);
  addKeyCommands(program);
  addAliasCommands(program);
  addPolicyCommands(program);
  addKeyslotCommands(program);
  addAuditCommands(program);
}
