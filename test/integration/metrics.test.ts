import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { utf8 } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { cleanEnv, initVault, kmsProgram, passphrase, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';

/** The samples of a text exposition, by name and labels. */
function samplesOf(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const parsed = lines.map((line) => /^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) (\S+)$/.exec(line));
  expect(parsed.every((match) => match !== null)).toBe(true);
  return new Map(parsed.map((match) => [match?.[1] ?? '', Number(match?.[2])]));
}

test('metrics: requests by method and outcome, durations by method and provider, and how the agent is', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  expect(samplesOf((await kms.metrics()).text).get('kms_agent_unlocked')).toBe(0);
  await kms.unlock({ passphrase });
  const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
  for (let count = 0; count < 3; count += 1) await kms.sign({ keyId, message: utf8('x') });
  await kms.describeKey({ keyId: 'alias/none' }).catch(() => undefined);
  await kms.call('no such method' as 'status', {}).catch(() => undefined);
  const { contentType, text } = await kms.metrics();
  const samples = samplesOf(text);
  expect(contentType).toContain('version=0.0.4');
  expect(samples.get('kms_agent_requests_total{method="sign",outcome="ok"}')).toBe(3);
  expect(samples.get('kms_agent_requests_total{method="describeKey",outcome="ERR_ALIAS_NOT_FOUND"}')).toBe(1);
  expect(samples.get('kms_agent_request_duration_seconds_count{method="sign",provider="software"}')).toBe(3);
  expect(samples.get('kms_agent_request_duration_seconds_bucket{le="+Inf",method="sign",provider="software"}')).toBe(3);
  for (const [name, value] of [
    ['kms_agent_unlocked', 1],
    ['kms_agent_keys', 2],
    ['kms_agent_connections', 1],
    ['kms_agent_audit_healthy', 1],
    ['kms_agent_provider_up{provider="software"}', 1],
  ] as const)
    expect([name, samples.get(name)]).toEqual([name, value]);
  expect(samples.get('process_resident_memory_bytes')).toBeGreaterThan(1_000_000);
  const printed = await run(kmsProgram, ['metrics'], { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }) });
  expect(samplesOf(printed.stdout.toString()).get('kms_agent_unlocked')).toBe(1);
});

test('metrics: what was answered before anybody asked for figures is in them', async () => {
  await using agent = await TestAgent.dev();
  const kms = await agent.client();
  for (let count = 0; count < 3; count += 1) await kms.generateRandom({ numberOfBytes: 1 });
  const samples = samplesOf((await kms.metrics()).text);
  expect(samples.get('kms_agent_requests_total{method="generateRandom",outcome="ok"}')).toBe(3);
  expect(samples.get('kms_agent_request_duration_seconds_count{method="generateRandom",provider=""}')).toBe(3);
});

test('metrics: what callers send makes no new label', async () => {
  await using agent = await TestAgent.dev();
  const kms = await agent.client();
  const socket = createConnection(agent.socketPath);
  for (let count = 0; count < 50; count += 1) socket.write(`{"jsonrpc":"2.0","id":${count},"method":"made-up-${count}"}\n`);
  await expect
    .poll(async () => samplesOf((await kms.metrics()).text).get('kms_agent_requests_total{method="unknown",outcome="ERR_METHOD_NOT_FOUND"}'))
    .toBe(50);
  socket.destroy();
  expect((await kms.metrics()).text).not.toContain('made-up');
});

test('daemon/README.md: every figure that the alert rules ask for is exposed', async () => {
  const rules = /```yaml\n([\s\S]*?)```/.exec(readFileSync(join(repository, 'daemon', 'README.md'), 'utf8'))?.[1] ?? '';
  const names = [...new Set(rules.match(/kms_agent_\w+/g))];
  expect(names.length).toBeGreaterThan(4);
  expect(rules).toMatch(
    /time\(\) - node_textfile_mtime_seconds\{file=~"\.\*kms-agent\.prom"\} > \d+ or \(up\{job="node"\} == 1 unless on\(instance\) node_textfile_mtime_seconds\{file=~"\.\*kms-agent\.prom"\}\)$/m,
  ); // an agent that is down exposes nothing, one that was never up no file, on whichever host; absent() would be quiet while any host has one
  await using agent = await TestAgent.dev();
  const { text } = await (await agent.client()).metrics();
  expect(names.filter((name) => !text.includes(`# TYPE ${name.replace(/_(bucket|count|sum)$/, '')} `))).toEqual([]);
});
