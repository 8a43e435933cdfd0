import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, connect, isAgentError } from '@kms-agent/client';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';
import { growsSteadily, percentile, type Sample, takeSample } from './measure.ts';
import { type Keys, manageNowAndThen, mix, worksFor } from './work.ts';

/*
 * `SOAK_MINUTES=10 npm run soak`: a real agent, on a folder and a token where there is one, under sixteen clients that check every answer.
 * Keys come and go, the vault is locked and unlocked, connections break off. Prints memory, descriptors and latency at the start and at the end.
 * Fails on a wrong answer, on descriptors that stay, and on memory that grows steadily; slowness never fails.
 */

const minutes = Number(process.env['SOAK_MINUTES'] ?? 1);
const clients = 16;
const sampleMs = Math.min(Math.max((minutes * 60_000) / 120, 250), 5000);
const manageMs = 2000;
const lockMs = 20_000;
/** Descriptors that may be more at the end: those of a process that is just being ended. */
const freeDescriptors = 8;

if (!(minutes > 0)) throw new RangeError('SOAK_MINUTES is a number of minutes');

interface Rig {
  readonly agent: TestAgent;
  readonly hasToken: boolean;
}

async function startRig(stack: AsyncDisposableStack): Promise<Rig> {
  if (hasSoftHsm) {
    const rig = stack.use(await TokenRig.make());
    if (rig.agent) return { agent: rig.agent, hasToken: true };
  }
  const folder = stack.use(new TempFolder());
  await initVault(folder);
  const agent = stack.use(await TestAgent.serve(folder));
  await (await agent.client()).unlock({ passphrase });
  return { agent, hasToken: false };
}

async function makeKeys(kms: AgentClient, hasToken: boolean): Promise<Keys> {
  const make = async (params: Parameters<AgentClient['createKey']>[0]): Promise<string> => (await kms.createKey(params)).keyId;
  return {
    aes: await make({}),
    spare: await make({}),
    ec: await make({ keySpec: 'EC_P256' }),
    k1: await make({ keySpec: 'EC_P256K' }),
    rsa: await make({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' }),
    rsaSign: await make({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }),
    ...(hasToken ? { tokenAes: await make({ protectionLevel: 'HSM' }), tokenEc: await make({ protectionLevel: 'HSM', keySpec: 'EC_P256' }) } : {}),
  };
}

/** What everybody was told. */
class Tally {
  readonly wrong: string[] = [];
  readonly refused = new Map<string, number>();
  /** Milliseconds of each work, and when it ended. */
  readonly done = new Map<string, { at: number; ms: number }[]>();

  answer(name: string, isRight: boolean, ms: number): void {
    if (!isRight) this.wrong.push(`${name}: a wrong answer`);
    const all = this.done.get(name) ?? [];
    this.done.set(name, all);
    all.push({ at: performance.now(), ms });
  }

  /** While the vault is locked every answer may be that; a token that was logged out with it needs a moment. */
  refuse(name: string, error: unknown): void {
    const code = isAgentError(error) ? error.code : String(error);
    if (!['ERR_AGENT_LOCKED', 'ERR_HSM_UNAVAILABLE', 'ERR_KEY_UNAVAILABLE'].includes(code)) this.wrong.push(`${name}: ${code}`);
    this.refused.set(code, (this.refused.get(code) ?? 0) + 1);
  }

  get count(): number {
    return [...this.done.values()].reduce((sum, all) => sum + all.length, 0);
  }
}

/** One client, on a connection of its own that is broken off now and then. */
async function useAgent(agent: TestAgent, keys: Keys, tally: Tally, isOver: () => boolean): Promise<void> {
  let kms = await connect({ socketPath: agent.socketPath });
  let calls = 0;
  for (const work of mix(worksFor(keys))) {
    if (isOver()) break;
    calls += 1;
    if (calls % 5000 === 0) {
      kms.close();
      kms = await connect({ socketPath: agent.socketPath });
    }
    const start = performance.now();
    try {
      tally.answer(work.name, await work.run(kms), performance.now() - start);
    } catch (error) {
      tally.refuse(work.name, error);
      await delay(5);
    }
  }
  kms.close();
}

/** Something that is done every so often until the end. */
async function every(ms: number, isOver: () => boolean, work: (turn: number) => Promise<void>): Promise<void> {
  for (let turn = 1; ; turn += 1) {
    for (let waited = 0; waited < ms && !isOver(); waited += 250) await delay(250);
    if (isOver()) return;
    await work(turn);
  }
}

function showTable(samples: readonly Sample[], tally: Tally, startMs: number, endMs: number): void {
  const [first, last] = [samples[0], samples.at(-1)];
  const row = (name: string, ...cells: (number | string | undefined)[]): void =>
    console.log(`${name.padEnd(40)}${cells.map((cell) => (typeof cell === 'number' ? cell.toFixed(1) : (cell ?? '')).padStart(12)).join('')}`);
  row('', 'start', 'end', 'most');
  for (const [name, of] of [
    ['resident memory, MiB', 'residentMiB'],
    ['heap and external memory, MiB', 'heapMiB'],
    ['descriptors', 'descriptors'],
    ['helpers of tokens, MiB', 'helpersMiB'],
  ] as const)
    row(name, first?.[of], last?.[of], Math.max(...samples.map((sample) => sample[of])));
  console.log();
  row('latency in ms', 'p50 start', 'p99 start', 'p50 end', 'p99 end', 'count');
  const part = (endMs - startMs) / 5;
  for (const [name, all] of [...tally.done].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const early = all.filter(({ at }) => at < startMs + part).map(({ ms }) => ms);
    const late = all.filter(({ at }) => at > endMs - part).map(({ ms }) => ms);
    row(name, percentile(early, 50), percentile(early, 99), percentile(late, 50), percentile(late, 99), String(all.length));
  }
}

await using stack = new AsyncDisposableStack();
const { agent, hasToken } = await startRig(stack);
const admin = await agent.client();
const keys = await makeKeys(admin, hasToken);
const pid = agent.child.pid ?? 0;
const tally = new Tally();
const samples: Sample[] = [];
console.log(`${minutes} minutes, ${clients} clients, ${hasToken ? 'a vault and a token of SoftHSM' : 'a vault without a token'}`);

const startMs = performance.now();
const endMs = startMs + minutes * 60_000;
const isOver = (): boolean => performance.now() > endMs || agent.child.exitCode !== null;
const users = Array.from({ length: clients }, () => useAgent(agent, keys, tally, isOver));
await delay(Math.min(5000, minutes * 6000)); // until everything has been used once
const sampling = every(sampleMs, isOver, async () => void samples.push(await takeSample(admin, pid, (performance.now() - startMs) / 60_000)));
const managing = every(manageMs, isOver, async (turn) => {
  try {
    tally.answer('keys that come and go', await manageNowAndThen(admin, keys, turn), 0);
  } catch (error) {
    tally.refuse('keys that come and go', error);
  }
});
const locking = every(lockMs, isOver, async () => {
  await admin.lock();
  await admin.unlock({ passphrase });
});
await Promise.all([...users, sampling, managing, locking]);
await delay(1000); // until connections that were closed are gone
const rest = await takeSample(admin, pid, minutes);

showTable(samples, tally, startMs, endMs);
console.log(`\n${tally.count} answers checked, ${tally.wrong.length} wrong; refused while locked: ${JSON.stringify(Object.fromEntries(tally.refused))}`);
const findings = [
  ...new Set(tally.wrong),
  ...(rest.descriptors > (samples[0]?.descriptors ?? 0) + freeDescriptors - clients
    ? [`${rest.descriptors} descriptors at rest, ${samples[0]?.descriptors} with all clients`]
    : []),
  ...(growsSteadily(samples.map(({ heapMiB }) => heapMiB)) ? ['the heap grows steadily'] : []),
  ...(growsSteadily(samples.map((sample) => sample.residentMiB)) ? ['resident memory grows steadily'] : []),
  ...(growsSteadily(samples.map(({ helpersMiB }) => helpersMiB)) ? ['the memory of the helpers grows steadily'] : []),
];
for (const finding of findings) console.log(`WRONG  ${finding}`);
if (findings.length > 0) console.log(agent.log.split('\n').slice(-20).join('\n'));
process.exitCode = findings.length > 0 ? 1 : 0;
