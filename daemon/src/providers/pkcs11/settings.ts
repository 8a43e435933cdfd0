import { type Stats, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { AgentError, isAgentError } from '@kms-agent/protocol';
import { isOpen, isOurs, walkTo } from '../../os/trust.ts';
import type { TokenMatch } from './messages.ts';
import { parseTokenUri } from './uri.ts';

/** Where a PIN comes from: a person each time, the vault, the OS keychain, or a systemd credential. */
export type PinSource = 'ask' | 'vault' | 'keychain' | `credential:${string}`;

/** A token as the settings file describes it. Times are milliseconds. */
export interface TokenSettings {
  /** What keys remember as the place of their material; it must not change. */
  readonly name: string;
  /** Absolute path of the vendor's PKCS#11 module. */
  readonly module: string;
  /** RFC 7512, by label and serial number. */
  readonly uri: string;
  readonly pin: PinSource;
  /** Sessions that work side by side. */
  readonly sessions: number;
  /** Past it the module is held to hang: its helper is ended and another one started. */
  readonly timeoutMs: number;
  /** The same for making, taking in and destroying keys. */
  readonly generateTimeoutMs: number;
  /** How often an idle token is asked whether it is well. */
  readonly checkIntervalMs: number;
  /** Calls that may wait for a session; past it ERR_BUSY. */
  readonly maxQueued: number;
}

export const defaultTokenSettings = {
  pin: 'ask',
  sessions: 8,
  timeoutMs: 10_000,
  generateTimeoutMs: 120_000,
  checkIntervalMs: 30_000,
  maxQueued: 4096,
} as const;

const wrong = (name: string, reason: string, cause?: unknown): AgentError =>
  new AgentError('ERR_STATE_CONFLICT', { hint: `The token ${name} in the settings: ${reason}` }, { cause });

/**
 * Checks what a schema cannot say: unique names, URIs, and modules that nobody else can put something else in place of.
 * @throws AgentError `ERR_STATE_CONFLICT` that names the token and what is wrong.
 */
export function checkTokens(tokens: readonly TokenSettings[]): void {
  for (const [index, { name, module, uri }] of tokens.entries()) {
    if (name === 'software') throw wrong(name, 'this name is taken by the software provider; choose another.');
    if (tokens.findIndex((other) => other.name === name) !== index) throw wrong(name, 'the name stands there twice.');
    try {
      parseTokenUri(uri);
      checkModuleFile(module);
    } catch (error) {
      if (isAgentError(error)) throw error;
      throw wrong(name, `${error instanceof Error ? error.message : String(error)}.`, error);
    }
  }
}

export function matchOf({ uri }: TokenSettings): TokenMatch {
  return parseTokenUri(uri);
}

/** @throws TypeError when others can put something else in the place of what is there. */
function checkPlace(place: string, stat: Stats): void {
  if (!isOurs(stat)) throw new TypeError(`${place} belongs to user ${stat.uid}, who could put another module there; it must be root's or the agent's own`);
  if (isOpen(stat)) throw new TypeError(`${place} can be written by others; run: chmod go-w ${place}`);
}

/**
 * What a module says is run with the PIN of a token: only root and the agent's own user may be able to change it, or any folder or link on the way to it.
 * @returns the path without links, which is what may be loaded.
 * @throws TypeError that names the file or folder that others can write. A file that is not there is another matter.
 */
export function checkModuleFile(path: string): string {
  if (!isAbsolute(path)) throw new TypeError(`the path of a module is absolute, not ${path}`);
  if (!statSync(path, { throwIfNoEntry: false })) return path;
  return walkTo(path, checkPlace);
}
