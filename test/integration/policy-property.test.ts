import type { AgentClient } from '@kms-agent/client';
import type { PolicyStatement } from '@kms-agent/protocol';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestAgent } from '../kit/agent.ts';

let agent: TestAgent;
let kms: AgentClient;
beforeAll(async () => {
  agent = await TestAgent.dev('--no-default-key');
  kms = await agent.client();
});
afterAll(async () => await agent.end());

const uids = [4901, 4902, 4903];
const methods = ['sign', 'verify', 'describeKey', 'disableKey', 'getKeyPolicy'] as const;
const statement: fc.Arbitrary<PolicyStatement> = fc.record({
  effect: fc.constantFrom('Allow' as const, 'Deny' as const),
  principals: fc.array(fc.constantFrom(...uids.map((uid) => `uid:${uid}`), '*'), { minLength: 1, maxLength: 2 }),
  actions: fc.array(fc.constantFrom(...methods, 'use', 'view', 'manage'), { minLength: 1, maxLength: 2 }),
});
const statements = fc.array(statement, { maxLength: 4 });

/** Everything that a policy lets the small world do with a key, through the socket. */
async function rightsOn(keyId: string): Promise<string[]> {
  const questions = uids.flatMap((uid) => methods.map((method) => ({ uid, method })));
  const answers = await Promise.all(questions.map(({ uid, method }) => kms.explain({ caller: { uid }, method, keyId })));
  return questions.filter((_, index) => answers[index]?.allowed).map(({ uid, method }) => `${uid} ${method}`);
}

test('no grant leaks to another key, whatever the policies are (property, through the socket)', async () => {
  const [one, other] = await Promise.all([kms.createKey({ keySpec: 'EC_P256' }), kms.createKey({ keySpec: 'EC_P256' })]);
  let granted = 0;
  await fc.assert(
    fc.asyncProperty(statements, statements, async (first, second) => {
      await kms.setKeyPolicy({ keyId: one.keyId, policy: { statements: first } });
      await kms.setKeyPolicy({ keyId: other.keyId, policy: { statements: [] } });
      const before = await rightsOn(one.keyId);
      granted += before.length;
      expect(await rightsOn(other.keyId)).toEqual([]);
      await kms.setKeyPolicy({ keyId: other.keyId, policy: { statements: second } });
      expect(await rightsOn(one.keyId)).toEqual(before);
    }),
    { numRuns: 60 },
  );
  expect(granted).toBeGreaterThan(0);
});
