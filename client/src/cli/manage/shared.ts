import type { Command } from 'commander';
import { Option } from 'commander';
import type { AgentClient } from '../../client.ts';
import { UsageError } from '../files.ts';
import { printResult } from '../print.ts';
import { optionsOf, withClient } from '../session.ts';

/** Runs one call and prints what it answers. */
export async function show(command: Command, work: (client: AgentClient) => Promise<object>): Promise<void> {
  printResult(await withClient(command, work), optionsOf<object>(command).json);
}

/** Reads the number of a descriptor. */
export function parseFd(text: string): number {
  const fd = Number(text);
  if (Number.isInteger(fd) && fd >= 0) return fd;
  throw new UsageError(`--passphrase-fd takes the number of an open descriptor, not ${text}`);
}

export const passphraseOption = (): Option =>
  new Option('--passphrase-fd <n>', 'read the passphrase from this descriptor instead of the terminal').argParser(parseFd);

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** What acts on an id alone also takes the alias that a person knows. */
export const idOf = async (client: AgentClient, key: string): Promise<string> => (await client.describeKey({ keyId: key })).keyId;
