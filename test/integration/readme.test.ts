import { createDecipheriv } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeBlob, errors } from '@kms-agent/protocol';
import { expect, test } from 'vitest';
import { defaultSettings } from '../../daemon/src/config.ts';
import { agentActions } from '../../daemon/src/policy/actions.ts';
import { defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { agentProgram, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { protectionsOfTheMachine } from '../kit/outcome.ts';
import { Wire } from '../kit/wire.ts';

const read = (path: string): string => readFileSync(join(repository, path), 'utf8');

test('protocol/README.md: its examples are answered by a real agent as it says', async () => {
  const examples = /```json\n([\s\S]*?)```/.exec(read('protocol/README.md'))?.[1]?.trim().split('\n') ?? [];
  expect(examples.length).toBeGreaterThan(5);
  await using agent = await TestAgent.dev();
  using wire = await Wire.open(agent.socketPath);
  const answers = [];
  for (const example of examples) answers.push(await wire.ask(example));
  expect(answers.slice(0, -1).map(({ error }) => error)).toEqual(Array.from({ length: examples.length - 1 }, () => undefined));
  expect(read('protocol/README.md')).toContain(
    JSON.stringify({ ...answers.at(-1), error: { ...answers.at(-1)?.error, data: { ...answers.at(-1)?.error?.data, requestId: '…' } } }),
  );
});

test('protocol/README.md: the blob of the test vector opens, and the error table is that of the code', () => {
  const text = read('protocol/README.md');
  const blob = decodeBlob(Buffer.from(/```\n(6b6d7301[0-9a-f]+)\n```/.exec(text)?.[1] ?? '', 'hex'));
  if (!blob) throw new Error('the vector is no blob');
  const decipher = createDecipheriv('aes-256-gcm', Buffer.from(Array.from({ length: 32 }, (_, index) => index)), blob.iv, { authTagLength: 16 });
  decipher.setAAD(Buffer.concat([blob.header, Buffer.from('context')]));
  decipher.setAuthTag(blob.ciphertext.subarray(-16));
  expect(Buffer.concat([decipher.update(blob.ciphertext.subarray(0, -16)), decipher.final()]).toString()).toBe('hello');
  for (const [name, { number, message, retryable }] of Object.entries(errors))
    expect(text).toContain(`| ${number} | ${name} | ${message} | ${retryable ? 'yes' : ''} |`);
});

test('README.md: the reader’s own code runs under kms-agent dev', async () => {
  using folder = new TempFolder();
  const code = /```js\n([\s\S]*?)```/.exec(read('README.md'))?.[1] ?? '';
  const local = code.replace("'@kms-agent/client'", `'${repository}client/dist/index.js'`);
  expect(local).not.toBe(code);
  writeFileSync(folder.join('app.mjs'), local);
  const { code: status, stdout, stderr } = await run(agentProgram, ['dev', '--', process.execPath, folder.join('app.mjs')]);
  const others = stderr.split('\n').filter((line) => line !== '' && !protectionsOfTheMachine.some((name) => line.includes(`the protection ${name} is off`)));
  expect([status, stdout.toString(), others]).toEqual([0, '4111 1111 1111 1111\n', []]);
});

test('daemon/README.md: lists every setting with its default, and no other', () => {
  const [before = '', after = ''] = read('daemon/README.md').split('## Tokens');
  const rowsIn = (text: string): unknown => [...text.matchAll(/^\| `(\w+)` \| (\w+) \|/gm)].map(([, name, value]) => [name, value]);
  expect(rowsIn(after)).toEqual(Object.entries(defaultTokenSettings).map(([name, value]) => [name, String(value)]));
  expect(rowsIn(before)).toEqual(Object.entries(defaultSettings).map(([name, value]) => [name, typeof value === 'object' ? 'none' : String(value)]));
});

test('daemon/README.md: names every action of the agent’s policy', () => {
  const sentence = /of the same shape, for methods without a key: (.*)\./.exec(read('daemon/README.md'))?.[1] ?? '';
  expect([...sentence.matchAll(/`(\w+)`/g)].map(([, name]) => name)).toEqual([...agentActions]);
});
