import fc from 'fast-check';
import { Wire, type WireResponse } from '../../kit/wire.ts';
import { checkAnswer, FuzzAgent, inTime } from '../agent.ts';
import { changeJson, jsonChanges } from '../mutation.ts';
import { type Call, callsByMethod, resolvePicks } from '../schema.ts';
import { must, prove, type Target } from '../target.ts';

/** After a lock an agent has to be replaced. */
const isRare = (method: string): boolean => method === 'lock';

const anyCall: fc.Arbitrary<Call> = fc.oneof(...[...callsByMethod].map(([method, arbitrary]) => ({ weight: isRare(method) ? 1 : 20, arbitrary })));

/** Calls that run side by side on one connection, as they are and a little changed. */
const calls = fc.array(fc.record({ call: anyCall, changes: fc.oneof(fc.constant([]), jsonChanges) }), { minLength: 1, maxLength: 10 });

/** Whether an object has a name that JavaScript itself would take for something else. */
function holdsProto(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.hasOwn(value, '__proto__') || Object.values(value).some(holdsProto);
}

/** Parameters of every method. */
export const params: Target = {
  name: 'params',
  promise: 'each request is answered in the words of the protocol, never ERR_INTERNAL, and the agent stays well',
  runs: 120,
  open: (stack) => {
    const agent = stack.use(new FuzzAgent());
    return prove(calls, async (asked) => {
      await agent.run(async () => {
        using wire = await Wire.open(agent.socketPath);
        const sent = asked.map(({ call: { method, params: wanted }, changes }) => ({ method, params: changeJson(resolvePicks(wanted, agent.pools), changes) }));
        wire.send(sent.map((call, id) => `${JSON.stringify({ jsonrpc: '2.0', id, ...call })}\n`).join(''));
        for (const _ of sent) {
          const answer = await inTime(wire.answer<WireResponse>(), `one of ${JSON.stringify(sent).slice(0, 2000)} is not answered`);
          const call = typeof answer.id === 'number' ? sent[answer.id] : undefined;
          const isObject = typeof call?.params === 'object' && call.params !== null;
          must(call !== undefined || answer.id === null, `an answer to nobody: ${JSON.stringify(answer)}`);
          const code = checkAnswer(call?.method ?? '', answer);
          if (isObject && holdsProto(call.params)) must(code === 'ERR_INVALID_PARAMS', `${JSON.stringify(call)}: __proto__ is ignored; ${code}`);
        }
      });
    });
  },
};
