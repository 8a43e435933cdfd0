import type { AgentStatus } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { formatStatusPage } from '../../../client/src/cli/status-page.ts';

const nowMs = Date.parse('2026-11-26T12:00:00.000Z');
const full: AgentStatus = {
  version: '1.2.3',
  protocolVersion: 1,
  state: 'UNLOCKED',
  startTime: '2026-11-24T12:00:00.000Z',
  unlockTime: '2026-11-26T11:57:00.000Z',
  providers: [
    { name: 'software', kind: 'software', state: 'ok' },
    {
      name: 'signing',
      kind: 'pkcs11',
      state: 'down',
      token: 'Releases',
      error: 'ERR_HSM_PIN_WRONG',
      hsm: {
        label: 'Releases',
        manufacturer: 'SoftHSM project',
        model: 'SoftHSM v2',
        serial: '0f1e',
        firmware: '2.6',
        sessions: 4,
        openSessions: 3,
        recoveries: 2,
        lastError: 'CKR_PIN_INCORRECT',
        lastErrorTime: '2026-11-26T11:59:00.000Z',
      },
    },
  ],
  protections: [
    { name: 'notInspectable', on: true },
    { name: 'secureHeap', on: false, detail: 'started without --secure-heap' },
  ],
  counts: { keys: 12, connections: 3, inFlight: 1 },
  audit: { state: 'ok', seq: 4711 },
  warnings: ['The clock jumped.', 'a\u001b[2J'],
};

test('the page of an agent: what it is, where, how, and what is wrong with it', () => {
  expect(formatStatusPage(full, '/run/a.sock, from KMS_AGENT_SOCK', nowMs)).toBe(`Agent        1.2.3, protocol 1
Socket       /run/a.sock, from KMS_AGENT_SOCK
State        UNLOCKED since 2026-11-26 11:57:00 UTC (3 minutes ago)
Started      2026-11-24 12:00:00 UTC (2 days ago)
Keys         12
Connections  3, 1 request running
Providers    software: ok
             signing: down, pkcs11, SoftHSM project SoftHSM v2 Releases serial 0f1e firmware 2.6, 3 sessions, ERR_HSM_PIN_WRONG, last error: CKR_PIN_INCORRECT, at 2026-11-26 11:59:00 UTC (1 minute ago), recovered 2 times
Protections  OFF: secureHeap, started without --secure-heap
Audit        ok, 4711 records
Warnings     The clock jumped.
             a\\u001b[2J
`);
});

test('the page of an agent: all well, and locked', () => {
  const page = formatStatusPage({ ...full, state: 'LOCKED', protections: [{ name: 'a', on: true }], warnings: [] }, 'x', nowMs);
  expect(page).toContain('State        LOCKED: kms unlock opens it\n');
  expect(page).toContain('Protections  all 1 on\n');
  expect(page).toContain('Warnings     none\n');
});

test('the page of an agent for others than administrators: three lines', () => {
  expect(formatStatusPage({ version: '1.2.3', protocolVersion: 1, state: 'UNINITIALIZED' }, 'x', nowMs)).toBe(
    'Agent   1.2.3, protocol 1\nSocket  x\nState   UNINITIALIZED: kms-agent init makes a vault\n',
  );
});
