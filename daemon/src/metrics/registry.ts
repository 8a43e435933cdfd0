import type { ProviderStatus } from '@kms-agent/protocol';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

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

/** An answer that left the agent. */
export interface AnsweredRequest {
  readonly method: string;
  /** `ok` or the code of the error. */
  readonly outcome: string;
  /** Where the key lives; empty for what has no key. */
  readonly provider: string;
  readonly seconds: number;
}

/** Upper bounds in seconds: from what stays in memory to what a slow token needs. */
const buckets = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30];

/** Counts answers, and writes the Prometheus text exposition format. The owner of prom-client. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #requests = new Counter({
    name: 'kms_agent_requests_total',
    help: 'Requests answered, by method and outcome: ok or the code of the error.',
    labelNames: ['method', 'outcome'],
    registers: [this.#registry],
  });
  readonly #durations = new Histogram({
    name: 'kms_agent_request_duration_seconds',
    help: 'Time from a decoded request to its answer, by method and by where the key lives.',
    labelNames: ['method', 'provider'],
    buckets,
    registers: [this.#registry],
  });
  /** Children of the two by their labels: looked up once, not at each request. */
  readonly #children = new Map<string, { inc(): void }>();
  readonly #timers = new Map<string, { observe(seconds: number): void }>();

  /** @param read - asked each time that somebody wants the text. */
  constructor(version: string, read: () => MetricsSnapshot) {
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

  count({ method, outcome, provider, seconds }: AnsweredRequest): void {
    remember(this.#children, `${method} ${outcome}`, () => this.#requests.labels(method, outcome)).inc();
    remember(this.#timers, `${method} ${provider}`, () => this.#durations.labels(method, provider)).observe(seconds);
  }

  async expose(): Promise<{ contentType: string; text: string }> {
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
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

function remember<T>(known: Map<string, T>, name: string, make: () => T): T {
  const child = known.get(name) ?? make();
  known.set(name, child);
  return child;
}
