import { expect, test } from 'vitest';
import { AnswerCounts, bounds } from '../../../daemon/src/metrics/answers.ts';
import { LateMetrics } from '../../../daemon/src/metrics/late.ts';

const answer = { method: 'sign', outcome: 'ok', provider: 'software', seconds: 0.001 };

test('answers are counted by method and outcome, and their durations by method and provider', () => {
  const counts = new AnswerCounts();
  for (const more of [{}, { outcome: 'ERR_BUSY' }, { provider: 'hsm' }, { method: 'verify' }]) counts.count({ ...answer, ...more });
  expect(counts.requests()).toEqual([
    { method: 'sign', outcome: 'ok', count: 2 },
    { method: 'sign', outcome: 'ERR_BUSY', count: 1 },
    { method: 'verify', outcome: 'ok', count: 1 },
  ]);
  const durations = counts.durations().map(({ method, provider, sum, counts: each }) => ({ method, provider, sum, all: each.reduce((a, b) => a + b) }));
  expect(durations).toEqual([
    { method: 'sign', provider: 'software', sum: 0.002, all: 2 },
    { method: 'sign', provider: 'hsm', sum: 0.001, all: 1 },
    { method: 'verify', provider: 'software', sum: 0.001, all: 1 },
  ]);
});

test('a duration counts for the first bound that it does not exceed, and beyond the last for none', () => {
  const counts = new AnswerCounts();
  const last = bounds.at(-1) ?? 0;
  for (const seconds of [0, bounds[0] ?? 0, 0.000_051, last, last + 1]) counts.count({ ...answer, seconds });
  expect([...(counts.durations()[0]?.counts ?? [])]).toEqual([2, 1, ...Array.from({ length: bounds.length - 3 }, () => 0), 1, 1]);
});

test('in the text a bucket counts all that took no longer (Prometheus text exposition format)', async () => {
  const figures = { unlocked: true, keys: 3, connections: 0, inFlight: 0, audit: { health: 'ok', seq: 0 }, providers: [], warnings: 0 } as const;
  const metrics = new LateMetrics('1.2.3', () => figures);
  for (const seconds of [0.000_01, 0.000_07, 99]) metrics.count({ ...answer, seconds });
  const { text } = await metrics.expose();
  const lines = text.split('\n').filter((line) => line.startsWith('kms_agent_request'));
  const bucket = (le: string): unknown => lines.find((line) => line.includes(`_bucket{le="${le}",`))?.split(' ')[1];
  expect([bucket('0.00005'), bucket('0.0001'), bucket('30'), bucket('+Inf')]).toEqual(['1', '2', '2', '3']);
  expect(lines).toContain('kms_agent_request_duration_seconds_count{method="sign",provider="software"} 3');
  expect(lines).toContain('kms_agent_request_duration_seconds_sum{method="sign",provider="software"} 99.00008');
  expect(lines).toContain('kms_agent_requests_total{method="sign",outcome="ok"} 3');
  expect(text).toContain('# TYPE kms_agent_request_duration_seconds histogram');
  expect((await metrics.expose()).text.match(/kms_agent_requests_total\{/g)).toHaveLength(1);
});
