import { setImmediate } from 'node:timers/promises';
import { type Failure, TokenFailure } from '../messages.ts';
import { CKF_RW_SERIAL_SESSION, nameOfMechanism } from './cryptoki.ts';
import type { Handle, Mechanism, PKCS11, Template } from './pkcs11js.ts';
import { isUnsupported, kindOfRv, nameOfRv, rvOf } from './rv.ts';

/** Bytes that an output may be longer than its input, so that no call ends in CKR_BUFFER_TOO_SMALL, which leaves its operation open. */
const slackBytes = 64;
/** Bytes of the longest signature or decrypted block: RSA_4096. */
const blockBytes = 512;
/** Objects that one call of C_FindObjects gives at most. */
const findBatch = 256;

/** What a call of pkcs11js threw, as the failure that it means; anything else goes on as it is. @param mechanism - that the call named. */
export function asFailure(call: string, error: unknown, mechanism?: number): unknown {
  const rv = rvOf(error);
  if (rv === undefined) return error;
  if (mechanism !== undefined && isUnsupported(rv))
    return new TokenFailure({ kind: 'unsupported', mechanism: nameOfMechanism(mechanism), rv: nameOfRv(rv), call });
  const kind = kindOfRv(rv);
  if (kind === 'data') return new TokenFailure({ kind: 'invalid' });
  return new TokenFailure({ kind: kind === 'fault' ? 'fault' : 'failed', rv: nameOfRv(rv), call });
}

/** A PKCS#11 session. It holds one operation at a time, so whoever has it has it alone. */
export class Session {
  readonly handle: Handle;
  readonly #library: PKCS11;
  readonly #onFault: (failure: Failure) => void;
  /** After any error but our own its state is not known: it is closed and replaced, never used again. */
  isPoisoned = false;
  /** What a worker thread reads must not be collected meanwhile: pkcs11js keeps no reference to it. */
  #input: Buffer | undefined;

  /** @param onFault - hears of each return value that means that something is sick. @throws TokenFailure */
  constructor(library: PKCS11, slot: Handle, onFault: (failure: Failure) => void) {
    this.#library = library;
    this.#onFault = onFault;
    this.handle = this.#try('C_OpenSession', () => library.C_OpenSession(slot, CKF_RW_SERIAL_SESSION));
  }

  /** A session that is gone already is closed as well. */
  close(): void {
    try {
      this.#library.C_CloseSession(this.handle);
    } catch (error) {
      if (rvOf(error) === undefined) throw error;
    }
  }

  async encrypt(mechanism: Mechanism, key: Handle, plaintext: Uint8Array): Promise<Buffer> {
    this.#try('C_EncryptInit', () => this.#library.C_EncryptInit(this.handle, mechanism, key), mechanism.mechanism);
    return await this.#finish('C_Encrypt', plaintext, (input, output) => this.#library.C_EncryptAsync(this.handle, input, output), mechanism.mechanism);
  }

  async decrypt(mechanism: Mechanism, key: Handle, ciphertext: Uint8Array): Promise<Buffer> {
    this.#try('C_DecryptInit', () => this.#library.C_DecryptInit(this.handle, mechanism, key), mechanism.mechanism);
    return await this.#finish('C_Decrypt', ciphertext, (input, output) => this.#library.C_DecryptAsync(this.handle, input, output), mechanism.mechanism);
  }

  async sign(mechanism: Mechanism, key: Handle, input: Uint8Array): Promise<Buffer> {
    this.#try('C_SignInit', () => this.#library.C_SignInit(this.handle, mechanism, key), mechanism.mechanism);
    return await this.#finish('C_Sign', input, (data, output) => this.#library.C_SignAsync(this.handle, data, output), mechanism.mechanism);
  }

  /** Handles of at most `limit` objects. */
  find(template: Template, limit: number): Handle[] {
    return this.#try('C_FindObjects', () => {
      this.#library.C_FindObjectsInit(this.handle, template);
      const found = this.#library.C_FindObjects(this.handle, limit);
      this.#library.C_FindObjectsFinal(this.handle);
      return found;
    });
  }

  /** Handles of all objects, read in batches between which others have their turn. */
  async findAll(template: Template): Promise<Handle[]> {
    return await this.#tryAsync('C_FindObjects', async () => {
      const all: Handle[] = [];
      this.#library.C_FindObjectsInit(this.handle, template);
      for (let found: Handle[] | undefined; found?.length !== 0; all.push(...found)) {
        await setImmediate();
        found = this.#library.C_FindObjects(this.handle, findBatch);
      }
      this.#library.C_FindObjectsFinal(this.handle);
      return all;
    });
  }

  /** Values of attributes, in the order of `types`. */
  attributes(object: Handle, ...types: number[]): Buffer[] {
    const read = this.#try('C_GetAttributeValue', () =>
      this.#library.C_GetAttributeValue(
        this.handle,
        object,
        types.map((type) => ({ type })),
      ),
    );
    return read.map(({ value }) => Buffer.from(value));
  }

  async generateKey(mechanism: number, template: Template): Promise<Handle> {
    return await this.#tryAsync('C_GenerateKey', () => this.#library.C_GenerateKeyAsync(this.handle, { mechanism }, template), mechanism);
  }

  async generatePair(mechanism: number, publicTemplate: Template, privateTemplate: Template): Promise<{ publicKey: Handle; privateKey: Handle }> {
    return await this.#tryAsync(
      'C_GenerateKeyPair',
      () => this.#library.C_GenerateKeyPairAsync(this.handle, { mechanism }, publicTemplate, privateTemplate),
      mechanism,
    );
  }

  create(template: Template): Handle {
    return this.#try('C_CreateObject', () => this.#library.C_CreateObject(this.handle, template));
  }

  destroy(object: Handle): void {
    this.#try('C_DestroyObject', () => this.#library.C_DestroyObject(this.handle, object));
  }

  wrap(mechanism: Mechanism, wrappingKey: Handle, key: Handle): Buffer {
    return this.#try('C_WrapKey', () => this.#library.C_WrapKey(this.handle, mechanism, wrappingKey, key, Buffer.alloc(blockBytes)), mechanism.mechanism);
  }

  unwrap(mechanism: Mechanism, wrappingKey: Handle, wrapped: Uint8Array, template: Template): Handle {
    return this.#try('C_UnwrapKey', () => this.#library.C_UnwrapKey(this.handle, mechanism, wrappingKey, Buffer.from(wrapped), template), mechanism.mechanism);
  }

  /** Runs one call of the library on this session. */
  call<T>(name: string, work: (library: PKCS11, session: Handle) => T): T {
    return this.#try(name, () => work(this.#library, this.handle));
  }

  async #finish(call: string, input: Uint8Array, work: (input: Buffer, output: Buffer) => Promise<Buffer>, mechanism: number): Promise<Buffer> {
    const data = Buffer.from(input);
    this.#input = data;
    try {
      return await this.#tryAsync(call, () => work(data, Buffer.alloc(data.length + slackBytes + blockBytes)), mechanism);
    } finally {
      this.#input.fill(0);
      this.#input = undefined;
    }
  }

  #try<T>(call: string, work: () => T, mechanism?: number): T {
    try {
      return work();
    } catch (error) {
      throw this.#poison(call, error, mechanism);
    }
  }

  async #tryAsync<T>(call: string, work: () => Promise<T>, mechanism?: number): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#poison(call, error, mechanism);
    }
  }

  #poison(call: string, error: unknown, mechanism?: number): unknown {
    this.isPoisoned = true;
    const failure = asFailure(call, error, mechanism);
    if (failure instanceof TokenFailure && failure.failure.kind === 'fault') this.#onFault(failure.failure);
    return failure;
  }
}
