import { writeFileSync } from 'node:fs';
import { AgentError, systemSocketPath } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { explainError } from '../../client/src/cli/session.ts';
import { TempFolder } from '../kit/agent.ts';

const unreachable = (code: string): AgentError => new AgentError('ERR_UNREACHABLE', {}, { cause: Object.assign(new Error(code), { code }) });

test('a socket that is for a group: the group, and how to get into it', () => {
  using folder = new TempFolder();
  const path = folder.join('agent.sock');
  writeFileSync(path, '');
  expect(explainError(unreachable('EACCES'), path)).toMatch(/for the group \S+\. As root: usermod -a -G \S+ \S+;/);
});

test("nobody answers on the system's socket: its unit is looked at", () => {
  expect(explainError(unreachable('ECONNREFUSED'), systemSocketPath)).toContain('systemctl status kms-agent');
});

test('nobody answers on another: start one', () => {
  expect(explainError(unreachable('ENOENT'), '/nowhere/agent.sock')).toContain('kms-agent serve');
});

const timeout = (mayHaveRun: boolean, cause: unknown): AgentError => new AgentError('ERR_TIMEOUT', { mayHaveRun }, { cause });

test.each(['ERR_UNREACHABLE', 'ERR_SHUTTING_DOWN', 'ERR_DISCONNECTED'] as const)('no time left while the agent was gone, %s: that is said', (code) => {
  const cause = new AgentError(code);
  expect(explainError(timeout(false, cause), '/nowhere/agent.sock')).toBe(explainError(cause, '/nowhere/agent.sock'));
});

test('no time left for what may have run, or with an agent that is there: that is said', () => {
  expect(explainError(timeout(true, unreachable('ENOENT')), '/nowhere/agent.sock')).toMatch(/^ERR_TIMEOUT: /);
  expect(explainError(timeout(false, new AgentError('ERR_BUSY')), '/nowhere/agent.sock')).toMatch(/^ERR_TIMEOUT: /);
});
