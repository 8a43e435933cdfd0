import type { windowOf } from './deletion.ts';
import { initialVersion, type Key, type KeyVersionEntry } from './key.ts';
import { type StoredState, transition } from './state.ts';

/** Material that was imported, and what is remembered of it. */
export interface Imported {
  readonly version: Pick<KeyVersionEntry, 'material' | 'publicKey'>;
  readonly checkValue: string;
  /** Absent for a check value that the provider made. */
  readonly checkSalt?: string;
  readonly materialExpireTime?: number;
}

/** Something that changes a key's state, with what it brings. */
export type Happening =
  | { readonly event: 'enable' | 'disable' | 'cancelDeletion' | 'deleteMaterial' | 'expire' }
  | { readonly event: 'scheduleDeletion'; readonly window: ReturnType<typeof windowOf> }
  | { readonly event: 'importMaterial'; readonly imported: Imported };

/**
 * The key after something happened to it. Whether it may, and what comes of it, is the transition's to say; here it is written into the key.
 * @param stored - the key's state as it is now.
 * @throws AgentError whatever the table of states answers.
 */
export function afterEvent(key: Key, stored: StoredState, happening: Happening): Key {
  const next = transition(stored, happening.event);
  const { deletionTime, windowEnd, ...rest } = withMaterial(key, happening);
  const present = { ...(deletionTime === undefined ? {} : { deletionTime }), ...(windowEnd === undefined ? {} : { windowEnd }) };
  const window = happening.event === 'scheduleDeletion' ? happening.window : present;
  return { ...rest, disabled: next.disabled, ...(next.pendingDeletion ? window : {}) };
}

function withMaterial(key: Key, happening: Happening): Key {
  const { materialExpireTime: _, ...rest } = key;
  if (happening.event === 'importMaterial') {
    const { version, ...remembered } = happening.imported;
    return { ...rest, ...remembered, versions: [{ ...initialVersion(key), ...version }] };
  }
  const isLost = happening.event === 'deleteMaterial' || happening.event === 'expire';
  return isLost ? { ...rest, versions: [{ ...initialVersion(key), material: new Uint8Array() }] } : key;
}
