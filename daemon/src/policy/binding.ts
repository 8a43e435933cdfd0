import { AgentError, type BindableFact, bindableFacts, encodeBoundFacts } from '@kms-agent/protocol';
import type { Caller } from '../caller/identity.ts';

/** Facts that go under a seal: which, and their bytes. */
export interface Binding {
  /** The blob's `bound` byte. */
  readonly bound: number;
  readonly facts: Uint8Array;
}

/** Where facts come from. */
interface Sources {
  readonly caller: Caller;
  readonly hostId: () => string | undefined;
}

/** A unit in a form that no other can have: one of a user's own carries the uid. */
function describeUnit({ uid, process }: Caller): string | undefined {
  const unit = process.unit();
  if (unit === undefined || unit === 'unknown') return undefined;
  return unit.scope === 'system' ? unit.name : `user@${uid}.service/${unit.name}`;
}

const read: Readonly<Record<BindableFact, (sources: Sources) => string | number | undefined>> = {
  user: ({ caller }) => caller.uid,
  unit: ({ caller }) => describeUnit(caller),
  host: ({ hostId }) => hostId(),
};

/** The facts that a `bound` byte asks for; undefined when one of them is not known of this caller. */
export function readFacts(bound: number, sources: Sources): Uint8Array | undefined {
  const wanted = bindableFacts.filter((_, bit) => (bound & (1 << bit)) !== 0);
  const values = wanted.map((fact) => [fact, read[fact](sources)] as const);
  return values.some(([, value]) => value === undefined) ? undefined : encodeBoundFacts(Object.fromEntries(values));
}

/** @throws AgentError `ERR_ACCESS_DENIED` when a fact is not known: a seal without it would promise what it does not hold. */
export function bindFacts(facts: ReadonlySet<BindableFact>, sources: Sources): Binding {
  const bound = bindableFacts.reduce((sum, fact, bit) => (facts.has(fact) ? sum | (1 << bit) : sum), 0);
  const read = readFacts(bound, sources);
  if (!read) throw new AgentError('ERR_ACCESS_DENIED', { hint: "The key's policy binds ciphertexts to facts that are not known of this caller." });
  return { bound, facts: read };
}
