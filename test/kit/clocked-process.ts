/*
 * A real agent in a process of its own, whose clocks and whose callers' unit a test sets through messages.
 * Arguments: folder of the vault, socket, settings as JSON, clocks as JSON, revision of a rolled back vault to go on with.
 */
import { join } from 'node:path';
import { defaultSettings } from '../../daemon/src/config.ts';
import { makeLog } from '../../daemon/src/log.ts';
import { startAgent } from '../../daemon/src/main.ts';
import { hasVault } from '../../daemon/src/vault/folder.ts';
import { Vault } from '../../daemon/src/vault/vault.ts';
import type { ClockMessage } from './clocked.ts';

const [dataDir = '', socket = '', settings = '{}', initial = '{}', acceptRollback = ''] = process.argv.slice(2);
let { wallMs = 0, bootMs = 0, sleptMs = 0, bootId = 'first boot', service } = JSON.parse(initial) as ClockMessage;

const running = await startAgent({
  settings: { ...defaultSettings, ...(JSON.parse(settings) as object) },
  log: makeLog(defaultSettings),
  listen: { path: socket },
  auditFolder: join(dataDir, 'audit'),
  ...(acceptRollback === '' ? {} : { acceptRollback: BigInt(acceptRollback) }),
  openVault: () => (hasVault(dataDir) ? Vault.open({ dataDir, clock: () => wallMs, argon2Cost: { memoryKiB: 64, passes: 1, parallelism: 1 } }) : undefined),
  time: {
    wall: () => wallMs,
    sinceBoot: () => bootMs,
    slept: () => sleptMs,
    get bootId() {
      return bootId;
    },
  },
  readFacts: () => ({
    unit: () => (service ? { scope: 'system', name: service } : undefined),
    executable: () => 'unknown',
    executablePath: () => undefined,
    seen: () => ({}),
  }),
});

process.on('message', (message: ClockMessage) => {
  ({ wallMs = wallMs, bootMs = bootMs, sleptMs = sleptMs, bootId = bootId } = message);
  if ('service' in message) ({ service } = message);
  process.send?.('done');
});
process.on('SIGTERM', () => void running.stop().then(() => process.exit(0)));
process.on('disconnect', () => process.exit(1));
process.send?.('ready');
