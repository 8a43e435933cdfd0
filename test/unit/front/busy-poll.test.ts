import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { BusyPoll } from '../../../daemon/src/front/busy-poll.ts';

const windowUs = 200;

/** One that sees 2 cores, and a clock that stands until it is moved. */
function makePoll({ windowUs: window = windowUs, cores = 2 } = {}) {
  const state: { nowMs: number; waitedMs: number | undefined; inFlight: number } = { nowMs: 1000, waitedMs: 0, inFlight: 0 };
  const poll = new BusyPoll({ windowUs: window, work: state, cores, now: () => state.nowMs, waited: () => state.waitedMs });
  const ask = (afterMs: number): void => {
    state.nowMs += afterMs;
    poll.noteRequest();
    poll.noteAnswers();
  };
  /** Until what was planned for the next turn of the event loop is done. */
  const settle = async (): Promise<void> => {
    await nextTurn();
    await nextTurn();
  };
  return { poll, state, ask, settle };
}

test('an agent stays awake once a request has come soon after an answer, and sleeps when the window is over', async () => {
  const { poll, state, ask, settle } = makePoll();
  ask(0);
  expect(poll.isPolling).toBe(false); // one request says nothing of the next
  ask(0.1);
  expect(poll.isPolling).toBe(true);
  await settle();
  expect(poll.isPolling).toBe(true); // the clock stands
  state.nowMs += 0.2;
  await settle();
  expect(poll.isPolling).toBe(false);
});

test('requests that come later than the window cost nothing', () => {
  const { poll, ask } = makePoll();
  for (const afterMs of [0, 0.2, 1, 5]) {
    ask(afterMs);
    expect(poll.isPolling).toBe(false);
  }
});

test('a late request after quick ones ends it', async () => {
  const { poll, state, ask, settle } = makePoll();
  ask(0);
  ask(0.1);
  state.nowMs += 0.2;
  await settle();
  ask(0);
  expect(poll.isPolling).toBe(false);
});

test('while calls run nobody stays awake for others', async () => {
  const { poll, state, ask, settle } = makePoll();
  ask(0);
  state.inFlight = 1;
  ask(0.1);
  expect(poll.isPolling).toBe(false);
  state.inFlight = 0;
  ask(0.1);
  expect(poll.isPolling).toBe(true);
  state.inFlight = 1;
  await settle();
  expect(poll.isPolling).toBe(false);
});

test('an agent that had to wait for a core sleeps for the next second', async () => {
  const { poll, state, ask, settle } = makePoll();
  /** Whether it stays awake after quick requests, so long after those before, and with so much waiting in between. */
  const isAwakeAfter = async (ms: number, waitedMs: number): Promise<boolean> => {
    state.nowMs += ms;
    state.waitedMs = (state.waitedMs ?? 0) + waitedMs;
    await settle();
    ask(0);
    ask(0.1);
    return poll.isPolling;
  };
  expect(await isAwakeAfter(0, 0)).toBe(true);
  expect(await isAwakeAfter(100, 10)).toBe(true);
  expect(await isAwakeAfter(100, 20)).toBe(false);
  expect(await isAwakeAfter(900, 0)).toBe(false);
  expect(await isAwakeAfter(110, 0)).toBe(true);
  expect(await isAwakeAfter(99, 90)).toBe(true); // it looks ten times a second, and not more often
  expect(await isAwakeAfter(2, 0)).toBe(false);
});

test('where it is not known whether others want the cores nobody stays awake', () => {
  const { poll, state, ask } = makePoll();
  state.waitedMs = undefined;
  for (let turn = 0; turn < 3; turn += 1) ask(0.1);
  expect(poll.isPolling).toBe(false);
});

test.each([
  ['a window of 0', { windowUs: 0 }],
  ['one core', { cores: 1 }],
])('%s: never', (_name, options) => {
  const { poll, ask } = makePoll(options);
  for (let turn = 0; turn < 3; turn += 1) ask(0.01);
  expect(poll.isPolling).toBe(false);
});
