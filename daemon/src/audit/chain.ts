import { createHmac, timingSafeEqual } from 'node:crypto';
import { allocateSecret } from '../os/secret-bytes.ts';
import type { AuditRecord } from './record.ts';

/** Where a chain is: what the next record follows. */
export interface ChainEnd {
  /** Of the last record; 0 before the first. */
  readonly seq: number;
  /** Of the last line, hex. */
  readonly hash: string;
}

/** What the vault keeps of the chain: the key of the next checkpoint, its number, and where the chain was at the last one. */
export interface AuditState extends ChainEnd {
  readonly key: Uint8Array;
  readonly number: number;
  /** The first record that a walk must see to know which changes have begun and not ended; 0 when there was none. */
  readonly openSeq: number;
  /** The last record of those that the agent deleted for want of space; 0 when there are none. */
  readonly droppedSeq: number;
}

const nextInfo = Buffer.concat([Buffer.from('kms-agent audit key'), Buffer.from([1])]);
const checkpointLabel = Buffer.from('kms-agent checkpoint 1');

/** The key after this one: HKDF-Expand (RFC 5869 section 2.3) with info `kms-agent audit key`. What it was cannot be computed from what it is. */
export function nextKey(key: Uint8Array): Buffer {
  return createHmac('sha256', key).update(nextInfo).digest();
}

/** What a checkpoint proves. */
export interface CheckpointFacts {
  readonly number: number;
  readonly seq: number;
  readonly time: string;
  /** Of the vault when it was made, in decimal. */
  readonly vaultRevision: string;
  /** Of the line before. */
  readonly previous: string;
}

/** HMAC-SHA-256 over label ‖ u64 number ‖ u64 seq ‖ u64 vault revision ‖ hash of the line before (32) ‖ time; integers big-endian. Hex. */
export function macCheckpoint(key: Uint8Array, { number, seq, time, vaultRevision, previous }: CheckpointFacts): string {
  const numbers = Buffer.alloc(24);
  numbers.writeBigUInt64BE(BigInt(number), 0);
  numbers.writeBigUInt64BE(BigInt(seq), 8);
  numbers.writeBigUInt64BE(BigInt(vaultRevision), 16);
  return createHmac('sha256', key).update(checkpointLabel).update(numbers).update(Buffer.from(previous, 'hex')).update(time).digest('hex');
}

/** Whether a record is the checkpoint that this key makes. */
export function isCheckpointOf(key: Uint8Array, number: number, record: AuditRecord): boolean {
  const { mac = '', vaultRevision, seq, time, previous } = record;
  if (record.operation !== 'checkpoint' || record.number !== number || !/^\d{1,19}$/.test(vaultRevision ?? '') || !/^[0-9a-f]{64}$/.test(mac)) return false;
  const expected = macCheckpoint(key, { number, seq, time, vaultRevision: vaultRevision ?? '', previous });
  return timingSafeEqual(Buffer.from(expected, 'hex'), Buffer.from(mac, 'hex'));
}

const stateFormat = 1;
const keyAt = 1;
const numbersAt = keyAt + 32;
const hashAt = numbersAt + 32;
const stateBytes = hashAt + 32;

/** The state as the vault keeps it: format (1) ‖ key (32) ‖ u64 number ‖ u64 seq ‖ u64 openSeq ‖ u64 droppedSeq ‖ hash (32). Bytes, because a key in a text could not be overwritten. */
export function encodeState({ key, number, seq, openSeq, droppedSeq, hash }: AuditState): Buffer {
  const state = Buffer.alloc(stateBytes);
  state.writeUInt8(stateFormat, 0);
  state.set(key, keyAt);
  for (const [index, value] of [number, seq, openSeq, droppedSeq].entries()) state.writeBigUInt64BE(BigInt(value), numbersAt + 8 * index);
  state.write(hash, hashAt, 'hex');
  return state;
}

/** Reads what encodeState wrote, into memory of its own. @throws TypeError for another format. */
export function decodeState(plaintext: Uint8Array): AuditState {
  const state = Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength);
  if (state.length !== stateBytes || state[0] !== stateFormat) throw new TypeError('the state of the audit record has another format');
  const [number = 0, seq = 0, openSeq = 0, droppedSeq = 0] = [0, 8, 16, 24].map((at) => Number(state.readBigUInt64BE(numbersAt + at)));
  const key = allocateSecret(32);
  key.set(state.subarray(keyAt, numbersAt));
  return { key, number, seq, openSeq, droppedSeq, hash: state.toString('hex', hashAt) };
}
