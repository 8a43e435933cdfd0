import { setImmediate } from 'node:timers/promises';
import type { SignatureFormat, SigningAlgorithm } from '@kms-agent/protocol';
import type { MaterialRef, VerifyInput } from '../provider.ts';
import { p1363ToDer } from '../software/ecdsa-format.ts';
import type { PublicOperations } from '../software/public-operations.ts';

/** A signature of a token in the form that is asked for. @throws TypeError for one that is no r ‖ s. */
export function formatSignature(signature: Uint8Array, algorithm: SigningAlgorithm, format: SignatureFormat | undefined): Uint8Array {
  if (algorithm !== 'ECDSA_SHA_256' || format === 'P1363') return signature;
  const der = p1363ToDer(signature);
  if (!der) throw new TypeError('the signature is no r ‖ s'); // one that verified is
  return der;
}

/** Signatures of one turn that are verified one by one; more are held to one proof of their key, which costs less. */
const fewSignatures = 2;

interface Signed {
  readonly input: VerifyInput;
  readonly resolve: (isRight: boolean) => void;
  readonly reject: (error: unknown) => void;
}

/** Holds signatures of a token to their key, whose handle may be another's by now: those that come in one turn of the event loop together. */
export class SignatureCheck {
  readonly #public: PublicOperations;
  readonly #confirm: (ref: MaterialRef) => Promise<unknown>;
  readonly #waiting = new Map<string, Signed[]>();

  /** @param confirm - proves, after it is called, that the handle that is used is the key's; throws where it is not. */
  constructor(operations: PublicOperations, confirm: (ref: MaterialRef) => Promise<unknown>) {
    this.#public = operations;
    this.#confirm = confirm;
  }

  /** @param input - `r ‖ s` for EC. @throws whatever `confirm` does. */
  async isRight(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    const { keyVersionId } = ref;
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const batch = this.#waiting.get(keyVersionId) ?? [];
    batch.push({ input, resolve, reject });
    if (batch.length > 1) return await promise;
    this.#waiting.set(keyVersionId, batch);
    await setImmediate();
    this.#waiting.delete(keyVersionId);
    await this.#settle(ref, batch);
    return await promise;
  }

  async #settle(ref: MaterialRef, batch: readonly Signed[]): Promise<void> {
    try {
      if (batch.length > fewSignatures) await this.#confirm(ref);
      for (const { input, resolve } of batch) resolve(batch.length > fewSignatures || (await this.#public.verify(ref, input)));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
