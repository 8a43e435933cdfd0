import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { BusyPoll } from '../../../daemon/src/front/busy-poll.ts';

const windowUs = 200;

/** One that sees 2 cores, and a clock that stands until it is moved. */
function makePoll({ windowUs: window = windowUs, cores = 2 } = {}) {
  const state = { nowMs: 1000, isBusy: false };
  const poll = new BusyPoll({ windowUs: window, isBusy: () => state.isBusy, cores, now: () => state.nowMs });
  const ask = (afterMs: number): void => {
    state.nowMs += afterMs;
    poll.noteRequest();
    poll.noteAnswers();
  };
  return { poll, state, ask };
}

test('an agent stays awake once a request has come soon after an answer, and sleeps when the window is over', async () => {
  const { poll, state, ask } = makePoll();
  ask(0);
  expect(poll.isPolling).toBe(false); // one request says nothing of the next
  ask(0.1);
  expect(poll.isPolling).toBe(true);
  await nextTurn();
  expect(poll.isPolling).toBe(true); // the clock stands
  state.nowMs += 0.2;
  await nextTurn();
  await nextTurn();
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
  const { poll, state, ask } = makePoll();
  ask(0);
  ask(0.1);
  state.nowMs += 0.2;
  await nextTurn();
  await nextTurn();
  ask(0);
  expect(poll.isPolling).toBe(false);
});

test('while requests run nobody stays awake for others', async () => {
  const { poll, state, ask } = makePoll();
  ask(0);
  state.isBusy = true;
  ask(0.1);
  expect(poll.isPolling).toBe(false);
  state.isBusy = false;
  ask(0.1);
  expect(poll.isPolling).toBe(true);
  state.isBusy = true;
  await nextTurn();
  await nextTurn();
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
