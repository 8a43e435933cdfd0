import type { KeyPolicy, PolicyStatement } from '@kms-agent/protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Caller, Unit, Unknown } from '../../../daemon/src/caller/identity.ts';
import { actionGroups, keyActions } from '../../../daemon/src/policy/actions.ts';
import { CompiledPolicy } from '../../../daemon/src/policy/statement.ts';

/** Somebody of a small world, in which random rules meet random callers often. */
interface Person {
  readonly uid: number;
  readonly gid: number;
  readonly groups: number[];
  readonly unit: Unit | undefined | Unknown;
}

const ids = fc.integer({ min: 1, max: 3 });
const unitNames = ['a.service', 'b.service'];
const person: fc.Arbitrary<Person> = fc.record({
  uid: ids,
  gid: ids,
  groups: fc.uniqueArray(ids, { maxLength: 2 }),
  unit: fc.oneof(
    fc.constant(undefined),
    fc.constant('unknown' as const),
    fc.record({ scope: fc.constantFrom('system' as const, 'user' as const), name: fc.constantFrom(...unitNames) }),
  ),
});

const part = fc.oneof(
  ids.map((id) => ['uid', `${id}`] as const),
  ids.map((id) => ['gid', `${id}`] as const),
  fc.constantFrom(...unitNames).map((name) => ['unit', name] as const),
  fc.constantFrom(...unitNames).map((name) => ['user-unit', name] as const),
);
const principal = fc.oneof(
  { weight: 1, arbitrary: fc.constant('*') },
  { weight: 4, arbitrary: part.map(([kind, value]) => `${kind}:${value}`) },
  { weight: 2, arbitrary: fc.uniqueArray(part, { minLength: 1, maxLength: 3, selector: ([kind]) => kind }).map((parts) => Object.fromEntries(parts)) },
);
const action = fc.constantFrom('sign', 'advanceEncrypt', 'describeKey', 'setKeyPolicy', 'use', 'view', 'manage');
const statement = (effect?: 'Allow' | 'Deny'): fc.Arbitrary<PolicyStatement> =>
  fc.record({
    effect: effect === undefined ? fc.constantFrom('Allow' as const, 'Deny' as const) : fc.constant(effect),
    principals: fc.array(principal, { minLength: 1, maxLength: 3 }),
    actions: fc.array(action, { minLength: 1, maxLength: 3 }),
  });
const policy = fc.record({ statements: fc.array(statement(), { maxLength: 5 }) });
const asked = fc.record({ person, action: fc.constantFrom(...keyActions), isAdministrator: fc.boolean() });
type Asked = typeof asked extends fc.Arbitrary<infer T> ? T : never;

const callerOf = ({ uid, gid, groups, unit }: Person): Caller => ({
  uid,
  gid,
  connection: 0,
  groups,
  process: { unit: () => unit, executable: () => 'unknown', executablePath: () => undefined, seen: () => ({}) },
});

function isAllowed(rules: KeyPolicy, { person: who, action: what, isAdministrator }: Asked): boolean {
  const compiled = new CompiledPolicy(rules, 'key', { now: Date.now });
  return compiled.decide({ caller: callerOf(who), action: what, isAdministrator }, () => ({ used: 0, take: () => undefined }), false).allowed;
}

/** Whether a principal is somebody, in the words of the documentation: 'maybe' where the unit cannot be read. */
function isMeant(meant: string | Record<string, string>, { uid, gid, groups, unit }: Person): 'yes' | 'no' | 'maybe' {
  if (meant === '*') return 'yes';
  const pairs = typeof meant === 'string' ? [meant.split(':') as [string, string]] : Object.entries(meant);
  const answers = pairs.map(([kind, value]) => {
    if (kind === 'uid') return uid === Number(value);
    if (kind === 'gid') return gid === Number(value) || groups.includes(Number(value));
    if (unit === 'unknown') return 'maybe';
    return unit !== undefined && unit.name === value && unit.scope === (kind === 'unit' ? 'system' : 'user');
  });
  if (answers.includes(false)) return 'no';
  return answers.includes('maybe') ? 'maybe' : 'yes';
}

const names = ({ actions }: PolicyStatement, what: string): boolean =>
  actions.some((name) => name === what || (name in actionGroups && (actionGroups[name as keyof typeof actionGroups] as readonly string[]).includes(what)));

/** The rule in one sentence: nobody denies it, for sure or perhaps, and somebody surely allows it. */
function model({ statements }: KeyPolicy, { person: who, action: what, isAdministrator }: Asked): boolean {
  const speaking = statements.filter((one) => names(one, what));
  const isDenied = speaking.some(({ effect, principals }) => effect === 'Deny' && principals.some((meant) => isMeant(meant, who) !== 'no'));
  const mayMend = isAdministrator && (what === 'getKeyPolicy' || what === 'setKeyPolicy');
  return (!isDenied || mayMend) && speaking.some(({ effect, principals }) => effect === 'Allow' && principals.some((meant) => isMeant(meant, who) === 'yes'));
}

const runs = { numRuns: 3000 };

describe('what a policy decides (properties)', () => {
  test('it decides as its documentation says', () => {
    fc.assert(
      fc.property(policy, asked, (rules, question) => isAllowed(rules, question) === model(rules, question)),
      runs,
    );
  });

  test('adding a Deny never widens, wherever it stands', () => {
    fc.assert(
      fc.property(policy, statement('Deny'), fc.nat(5), asked, (rules, deny, place, question) => {
        const narrower = { statements: rules.statements.toSpliced(place, 0, deny) };
        return isAllowed(rules, question) || !isAllowed(narrower, question);
      }),
      runs,
    );
  });

  test('adding an Allow lets in those it names, for what it names, and nobody else', () => {
    fc.assert(
      fc.property(policy, statement('Allow'), asked, (rules, allow, question) => {
        const wider = { statements: [...rules.statements, allow] };
        const isNew = isAllowed(wider, question) && !isAllowed(rules, question);
        return !isNew || (names(allow, question.action) && allow.principals.some((meant) => isMeant(meant, question.person) === 'yes'));
      }),
      runs,
    );
  });

  test('the order of statements, principals and actions decides nothing', () => {
    fc.assert(
      fc.property(policy, asked, (rules, question) => {
        const turned = rules.statements.map((one) => ({ ...one, principals: one.principals.toReversed(), actions: one.actions.toReversed() })).toReversed();
        return isAllowed(rules, question) === isAllowed({ statements: turned }, question);
      }),
      runs,
    );
  });

  test('an empty policy allows nobody anything', () => {
    fc.assert(fc.property(asked, (question) => !isAllowed({ statements: [] }, question)));
    expect(model({ statements: [] }, { person: { uid: 0, gid: 0, groups: [], unit: undefined }, action: 'sign', isAdministrator: true })).toBe(false);
  });
});
