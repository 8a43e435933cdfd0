import type { ProviderStatus } from '@kms-agent/protocol';
import { AggregatorRegistry, collectDefaultMetrics, Gauge, type PrometheusContentType, Registry } from 'prom-client';
import { type AnswerCounts, bounds } from './answers.ts';

/** How the agent is when somebody asks. */
export interface MetricsSnapshot {
  readonly unlocked: boolean;
  readonly keys: number;
  readonly connections: number;
  readonly inFlight: number;
  readonly audit: { readonly health: string; readonly seq: number };
  readonly providers: readonly ProviderStatus[];
  /** Warnings that status shows. */
  readonly warnings: number;
}

/** Writes figures in the Prometheus text exposition format. The owner of prom-client. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #answers: AnswerCounts;

  /** @param read - asked each time that somebody wants the text. */
  constructor(version: string, answers: AnswerCounts, read: () => MetricsSnapshot) {
    this.#answers = answers;
    collectDefaultMetrics({ register: this.#registry });
    this.#gauge('kms_agent_info', 'Always 1; the version of the agent is its label.', ['version'], () => [[1, version]]);
    this.#gauge('kms_agent_unlocked', '1 while the vault is open.', [], () => [[Number(read().unlocked)]]);
    this.#gauge('kms_agent_keys', 'Keys in the open vault.', [], () => [[read().keys]]);
    this.#gauge('kms_agent_connections', 'Connections now.', [], () => [[read().connections]]);
    this.#gauge('kms_agent_in_flight', 'Requests that run now.', [], () => [[read().inFlight]]);
    this.#gauge('kms_agent_audit_healthy', '0 while the audit record cannot be written: requests are refused.', [], () => [
      [Number(read().audit.health === 'ok')],
    ]);
    this.#gauge('kms_agent_audit_seq', 'Number of the last audit record.', [], () => [[read().audit.seq]]);
    this.#gauge('kms_agent_warnings', 'Warnings that status shows.', [], () => [[read().warnings]]);
    const providers = (valueIn: (status: ProviderStatus) => number | undefined) => (): [number, string][] =>
      read().providers.flatMap((status) => {
        const value = valueIn(status);
        return value === undefined ? [] : [[value, status.name] as [number, string]];
      });
    this.#gauge(
      'kms_agent_provider_up',
      '1 while keys can be used where they live.',
      ['provider'],
      providers(({ state }) => Number(state === 'ok')),
    );
    this.#gauge(
      'kms_agent_hsm_sessions',
      'Most sessions that work side by side in a token.',
      ['provider'],
      providers(({ hsm }) => hsm?.sessions),
    );
    this.#gauge(
      'kms_agent_hsm_recoveries',
      'Times that a token was brought back since the start.',
      ['provider'],
      providers(({ hsm }) => hsm?.recoveries),
    );
  }

  async expose(): Promise<{ contentType: string; text: string }> {
    const counted = AggregatorRegistry.aggregate<PrometheusContentType>([[describeRequests(this.#answers), describeDurations(this.#answers)]]);
    return { contentType: this.#registry.contentType, text: await Registry.merge([counted, this.#registry]).metrics() };
  }

  #gauge(name: string, help: string, labelNames: string[], values: () => [value: number, ...labels: string[]][]): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect: () => {
        gauge.reset();
        for (const [value, ...labels] of values()) gauge.labels(...labels).set(value);
      },
    });
  }
}

/** Figures as the library's own registries give them to each other. */
interface MetricJson {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'histogram';
  readonly aggregator: 'sum';
  readonly values: readonly { readonly value: number; readonly labels: Readonly<Record<string, string | number>>; readonly metricName?: string }[];
}

const describeRequests = (answers: AnswerCounts): MetricJson => ({
  name: 'kms_agent_requests_total',
  help: 'Requests answered, by method and outcome: ok or the code of the error.',
  type: 'counter',
  aggregator: 'sum',
  values: answers.requests().map(({ count, ...labels }) => ({ value: count, labels })),
});

function describeDurations(answers: AnswerCounts): MetricJson {
  const name = 'kms_agent_request_duration_seconds';
  const values = answers.durations().flatMap(({ method, provider, counts, sum }) => {
    let count = 0;
    const buckets = [...bounds, '+Inf'].map((le, place) => {
      count += counts[place] ?? 0; // each bucket counts those below it too
      return { value: count, labels: { le, method, provider }, metricName: `${name}_bucket` };
    });
    const labels = { method, provider };
    return [...buckets, { value: sum, labels, metricName: `${name}_sum` }, { value: count, labels, metricName: `${name}_count` }];
  });
  return { name, help: 'Time from a decoded request to its answer, by method and by where the key lives.', type: 'histogram', aggregator: 'sum', values };
}
