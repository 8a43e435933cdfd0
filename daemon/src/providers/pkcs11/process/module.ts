import { type OfferedToken, TokenFailure, type TokenInfo, type TokenMatch } from '../messages.ts';
import { fits } from '../uri.ts';
import { CKF_OS_LOCKING_OK, mechanismNames } from './cryptoki.ts';
import { type Handle, loadPkcs11js, type PKCS11, type TokenInfo as RawTokenInfo } from './pkcs11js.ts';
import { kindOfRv, nameOfRv, rvOf } from './rv.ts';
import { asFailure } from './session.ts';

const tokenInitialized = 0x400;

/** Loads pkcs11js, which a host without a compiler may lack, and a module into it. @throws TokenFailure of kind `load`. */
export async function loadModule(path: string): Promise<PKCS11> {
  const library = await loadPkcs11js().catch((cause: unknown) => {
    throw new TokenFailure({ kind: 'load', message: `the package pkcs11js cannot be loaded; install it with npm install pkcs11js (${String(cause)})` });
  });
  try {
    library.load(path);
    library.C_Initialize({ flags: CKF_OS_LOCKING_OK }); // calls come from several threads
  } catch (error) {
    const rv = rvOf(error);
    if (rv !== undefined && kindOfRv(rv) === 'fault') throw asFailure('C_Initialize', error);
    throw new TokenFailure({ kind: 'load', message: `the module does not start: ${rv === undefined ? String(error) : nameOfRv(rv)}` });
  }
  return library;
}

/** What a token says of itself, padding removed. */
export function describeToken({ label, serialNumber, manufacturerID, model, firmwareVersion: { major, minor } }: RawTokenInfo): TokenInfo {
  return {
    label: label.trim(),
    serial: serialNumber.trim(),
    manufacturer: manufacturerID.trim(),
    model: model.trim(),
    firmware: `${major}.${minor}`,
  };
}

/** What is read of a slot; undefined of one that cannot be read: in another reader there may be a card that this module does not know. */
function readSlot<T>(work: () => T, onUnread: (error: unknown) => void): T | undefined {
  try {
    return work();
  } catch (error) {
    if (rvOf(error) === undefined) throw error;
    onUnread(error);
    return undefined;
  }
}

/** All tokens of a module that can be read, with the mechanisms that matter here. */
export function offerTokens(library: PKCS11): OfferedToken[] {
  return library.C_GetSlotList(true).flatMap((slot) => {
    const read = readSlot(
      () => ({ info: library.C_GetTokenInfo(slot), mechanisms: library.C_GetMechanismList(slot) }),
      () => undefined,
    );
    if (!read) return [];
    const mechanisms = read.mechanisms.flatMap((mechanism) => mechanismNames[mechanism] ?? []);
    return [{ ...describeToken(read.info), initialized: (read.info.flags & tokenInitialized) !== 0, mechanisms }];
  });
}

/**
 * The slot of the one token that fits, and that has the serial number if that is known.
 * @throws TokenFailure of kind `noToken`; `otherToken`; `fault` where what cannot be read may be the one.
 */
export function findToken(library: PKCS11, match: TokenMatch, serial?: string): { slot: Handle; info: TokenInfo } {
  let unread: unknown;
  const fitting = library.C_GetSlotList(true).flatMap((slot) => {
    const raw = readSlot(
      () => library.C_GetTokenInfo(slot),
      (error) => {
        unread = error;
      },
    );
    const info = raw && (raw.flags & tokenInitialized) !== 0 ? describeToken(raw) : undefined;
    return info && fits(info, match) ? [{ slot, info }] : [];
  });
  const found = serial === undefined ? fitting : fitting.filter(({ info }) => info.serial === serial);
  const [first] = found;
  if (first && found.length === 1) return first;
  if (found.length === 0 && unread) throw asFailure('C_GetTokenInfo', unread);
  const [other] = fitting;
  if (found.length === 0 && other && serial !== undefined)
    throw new TokenFailure({ kind: 'otherToken', label: other.info.label, serial: other.info.serial, expected: serial });
  throw new TokenFailure({ kind: 'noToken', found: found.length });
}
