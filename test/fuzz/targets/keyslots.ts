import { randomBytes } from 'node:crypto';
import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { describeKeyslot, isPersonal, Keyslots, tokenPartOf, withUnlockTime } from '../../../daemon/src/vault/keyslots/index.ts';
import { Argon2Queue } from '../../../daemon/src/vault/keyslots/passphrase.ts';
import { passphrase } from '../../kit/agent.ts';
import { type ByteChange, byteChanges, changeJson, changeText, type JsonChange, jsonChanges } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

/** A body that somebody changed: as text, as JSON, or in what it asks of Argon2. */
type Damage =
  | { readonly how: 'text'; readonly changes: readonly ByteChange[] }
  | { readonly how: 'json'; readonly changes: readonly JsonChange[] }
  | { readonly how: 'fields'; readonly fields: object };

const cost = fc.record({
  memoryKiB: fc.constantFrom(-1, 0, 7, 8, 64, 1024, 1.5, 2 ** 40),
  passes: fc.constantFrom(0, 1, 2, 65, '1'),
  parallelism: fc.constantFrom(0, 1, 64, 65, null),
});
const salt = fc.constantFrom('', 'AA==', '!', Buffer.alloc(8).toString('base64'), Buffer.alloc(100_000).toString('base64'));
const damage = fc.oneof(
  fc.record({ how: fc.constant('text'), changes: byteChanges }),
  fc.record({ how: fc.constant('json'), changes: jsonChanges }),
  fc.record({ how: fc.constant('fields'), fields: fc.record({ cost, salt }, { requiredKeys: [] }) }),
) as fc.Arbitrary<Damage>; // the record does not keep the names

function damageBody(body: string, asked: Damage): string {
  if (asked.how === 'text') return changeText(body, asked.changes);
  const value: unknown = JSON.parse(body);
  return JSON.stringify(asked.how === 'json' ? changeJson(value, asked.changes) : { ...(value as object), ...asked.fields }) ?? '';
}

/** A changed number must not make this test take the machine: what asks for much is left out here, and is killed at a deadline in the agent. */
function isCheap(body: string): boolean {
  const [, memory = '0', passes = '0'] = /"memoryKiB":(-?[\d.e+]+),"passes":(-?[\d.e+]+)/.exec(body) ?? [];
  return Number(memory) <= 4096 || Number(memory) > 4_194_304 ? Number(passes) <= 4 || Number(passes) > 64 : false;
}

/** @returns what the work gives; undefined when it names the damage. */
function orDamaged<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (isAgentError(error, 'ERR_STATE_CONFLICT')) return undefined;
    throw error;
  }
}

/** Bodies of keyslots. */
export const keyslots: Target = {
  name: 'keyslots',
  promise: 'a keyslot that somebody changed opens nothing, says so, and leaves the slot beside it as good as it was',
  runs: 40,
  open: async () => {
    const slots = new Keyslots(randomBytes(16), new Argon2Queue(), { memoryKiB: 64, passes: 1, parallelism: 1 });
    const keys = { rootKey: randomBytes(32), auditStartKey: randomBytes(32) };
    const [good, other] = [await slots.make({ type: 'passphrase', passphrase }, keys, 0), await slots.make({ type: 'passphrase', passphrase }, keys, 0)];
    return prove(damage, async (asked) => {
      const body = damageBody(other.body, asked);
      if (!isCheap(body)) return;
      for (const look of [describeKeyslot, isPersonal, tokenPartOf]) orDamaged(() => look(body));
      orDamaged(() => withUnlockTime(body, 0));
      const bodies = new Map([
        ['0', body],
        ['1', good.body],
      ]);
      const opened = await slots.open(bodies, { passphrase });
      const chosen = opened.keyslotId === good.keyslotId ? good.body : body;
      const rootKey = slots.unwrap(chosen, opened.wrappingKey, 'root key');
      must(rootKey?.equals(keys.rootKey) ?? false, `opened ${opened.keyslotId} to another key`);
    });
  },
};
