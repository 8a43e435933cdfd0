import { AgentError, type ErrorCode } from '@kms-agent/protocol';
import type { EncryptInput, EncryptOutput, MaterialRef, SignInput } from '../../daemon/src/providers/provider.ts';
import { SoftwareProvider } from '../../daemon/src/providers/software/provider.ts';

/** A provider that works, unless it is told to fail or to stall. */
export class FakeProvider extends SoftwareProvider {
  #failure: ErrorCode | undefined;
  #stall: Promise<void> | undefined;
  #release: () => void = () => undefined;

  /** Every operation fails so, until it is called without an error. */
  fail(code?: ErrorCode): void {
    this.#failure = code;
  }

  /** Every operation waits until `release`. */
  stall(): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stall = promise;
    this.#release = resolve;
  }

  release(): void {
    this.#stall = undefined;
    this.#release();
  }

  override async encrypt(ref: MaterialRef, input: EncryptInput): Promise<EncryptOutput> {
    await this.#obey();
    return await super.encrypt(ref, input);
  }

  override async sign(ref: MaterialRef, input: SignInput): Promise<Uint8Array> {
    await this.#obey();
    return await super.sign(ref, input);
  }

  async #obey(): Promise<void> {
    await this.#stall;
    if (this.#failure) throw new AgentError(this.#failure);
  }
}
