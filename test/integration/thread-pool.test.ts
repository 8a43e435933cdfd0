import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { initVault, TempFolder, TestAgent } from '../kit/agent.ts';
import { canInject, withFaults } from '../kit/strace.ts';

/** SCHED_OTHER and SCHED_BATCH (sched(7)). */
const [other, batch] = [0, 3];
/** Where the policy stands behind the name of the program in /proc/PID/task/TID/stat: field 41 (proc_pid_stat(5)). */
const policyField = 41 - 3;

/** Scheduling policies of the threads of a process, by their names. */
function policiesOf({ child }: TestAgent): Map<string, number[]> {
  const tasks = `/proc/${child.pid}/task`;
  const threads = readdirSync(tasks).map((thread) => {
    const stat = readFileSync(`${tasks}/${thread}/stat`, 'utf8');
    return { name: readFileSync(`${tasks}/${thread}/comm`, 'utf8').trim(), policy: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[policyField]) };
  });
  const named = Map.groupBy(threads, ({ name }) => name);
  return new Map([...named].map(([name, its]) => [name, its.map(({ policy }) => policy)]));
}

test('the event loop goes before the threads of the pool', async () => {
  await using agent = await TestAgent.dev();
  const policies = policiesOf(agent);
  expect(policies.get('libuv-worker')).toEqual([batch, batch, batch, batch]);
  policies.delete('libuv-worker');
  expect(new Set([...policies.values()].flat())).toEqual(new Set([other]));
});

test.skipIf(!canInject)('where a sandbox forbids that, the agent says so and works', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder, { command: withFaults({ calls: 'sched_setscheduler', error: 'EPERM' }) });
  const { pid } = agent.child; // of strace
  await expect
    .poll(() => `${agent.startLog}${agent.log}`)
    .toMatch(/signatures under load will be slower.*sched_setscheduler\(SCHED_BATCH\) failed with errno 1\b/);
  expect(await (await agent.client()).status()).toMatchObject({ state: 'LOCKED' });
  const ended = once(agent.child, 'exit');
  process.kill(Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')), 'SIGTERM');
  expect(await ended).toEqual([0, null]);
});
