import type { Connection } from './connection.ts';
import { matchOf, type TokenSettings } from './settings.ts';
import { formatTokenUri } from './uri.ts';

/** Says what an administrator should know of a token that is there for the first time: that its URI is a label alone, and what it lists and does not do. */
export function introduce(settings: TokenSettings, { info, abilities }: Connection, onNote: (note: string, level: 'warn' | 'info') => void): void {
  const { name } = settings;
  if (info && matchOf(settings).serial === undefined)
    onNote(
      `the URI of the token ${name} names no serial number; the agent holds to the token of its label that it logged in to first; set it to ${formatTokenUri(info)}`,
      'warn',
    );
  for (const refused of abilities?.refused ?? []) onNote(`the token ${name} does not offer ${refused}`, 'info');
}
