import { decodePolicy, isAgentError, type KeyPolicy } from '@kms-agent/protocol';
import fc from 'fast-check';
import type { Caller, Unit } from '../../../daemon/src/caller/identity.ts';
import { CompiledPolicy, type Question } from '../../../daemon/src/policy/statement.ts';
import { preparePolicy } from '../../../daemon/src/policy/writing.ts';
import { changeJson, jsonChanges } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const value = fc.oneof(fc.constantFrom('0', '1000', 'root', 'web.service', '/bin/sh', '*', '', '-1', '4294967295'), fc.string({ maxLength: 8 }));
const kind = fc.constantFrom('user', 'uid', 'group', 'gid', 'unit', 'user-unit', 'exe');
const principal = fc.oneof(
  fc.constant('*'),
  fc.tuple(kind, value).map(([name, text]) => `${name}:${text}`),
  fc.dictionary(kind, value, { maxKeys: 3 }),
);
const statement = fc.record(
  {
    sid: fc.string({ minLength: 1, maxLength: 5 }),
    effect: fc.constantFrom('Allow', 'Deny'),
    principals: fc.array(principal, { minLength: 1, maxLength: 3 }),
    actions: fc.array(fc.constantFrom('use', 'view', 'manage', 'encrypt', 'sign', 'describeKey', 'lock', 'createKey'), { minLength: 1, maxLength: 3 }),
    limits: fc.record(
      { perSecond: fc.integer({ min: 1, max: 9 }), total: fc.integer({ min: 1, max: 9 }), hours: fc.constantFrom('00:00-23:59', '22:00-06:00', '24:00-01:00') },
      { requiredKeys: [] },
    ),
    bindAad: fc.array(fc.constantFrom('user', 'unit', 'host'), { minLength: 1, maxLength: 3 }),
  },
  { requiredKeys: ['effect', 'principals', 'actions'] },
);
const unit = fc.constantFrom<Unit | undefined | 'unknown'>(
  undefined,
  'unknown',
  { scope: 'system', name: 'web.service' },
  { scope: 'user', name: 'web.service' },
);
const question = fc.record({ uid: fc.constantFrom(0, 1000), unit, action: fc.constantFrom('encrypt', 'sign', 'describeKey'), isAdministrator: fc.boolean() });
const asked = fc.record({
  policy: fc.record({ statements: fc.array(statement, { maxLength: 4 }) }),
  changes: fc.oneof(fc.constant([]), jsonChanges),
  questions: fc.array(question, { minLength: 1, maxLength: 4 }),
});

const context = { readsExecutables: true, hostId: () => 'host', now: () => 1_900_000_000_000 };
const noUses = { used: 0, take: () => undefined };

function makeCaller(uid: number, of: Unit | undefined | 'unknown'): Caller {
  return {
    uid,
    gid: uid,
    connection: 0,
    groups: [uid],
    process: { unit: () => of, executable: () => 'unknown', executablePath: () => undefined, seen: () => ({}) },
  };
}

/** The policy as an agent would take it; undefined for one that it refuses by name. */
function take(wire: unknown): { kept: KeyPolicy; compiled: CompiledPolicy } | undefined {
  try {
    const { policy: kept } = preparePolicy(decodePolicy(wire), context);
    return { kept, compiled: new CompiledPolicy(kept, 'key', context) };
  } catch (error) {
    must(isAgentError(error, 'ERR_INVALID_PARAMS', 'ERR_UNSUPPORTED_OPERATION'), `it fails with ${error instanceof Error ? error.stack : String(error)}`);
    return undefined;
  }
}

/** Policies of keys. */
export const policies: Target = {
  name: 'policies',
  promise: 'a policy is taken and decides, the same after it was stored, or is refused by name; what it denies no other statement allows',
  runs: 1500,
  open: () =>
    prove(asked, ({ policy, changes, questions }) => {
      const taken = take(changeJson(policy, changes));
      if (!taken) return;
      const again = take(JSON.parse(JSON.stringify(taken.kept)));
      must(again !== undefined, 'a policy that was stored is refused when it is read');
      for (const { uid, unit: of, ...rest } of questions) {
        const whole: Question = { ...rest, caller: makeCaller(uid, of) };
        const decision = taken.compiled.decide(whole, () => noUses, false);
        must(JSON.stringify(decision) === JSON.stringify(again.compiled.decide(whole, () => noUses, false)), 'a policy decides otherwise when it was stored');
        const { statement: deciding } = decision;
        const denier = new CompiledPolicy(
          { statements: [...taken.kept.statements, { effect: 'Deny', principals: ['*'], actions: ['use', 'view'] }] },
          'key',
          context,
        );
        must(!denier.decide(whole, () => noUses, false).allowed, 'Deny does not win');
        must(!decision.allowed || taken.kept.statements[deciding?.index ?? -1]?.effect === 'Allow', 'something is allowed by nothing');
      }
    }),
};
