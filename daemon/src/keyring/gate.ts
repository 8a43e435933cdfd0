import { AgentError } from '@kms-agent/protocol';

/** Lets requests that need keys in while the vault is open, and lets lock wait until the last one is out. */
export class Gate {
  #open = false;
  #inside = 0;
  #waiting: (() => void)[] = [];

  get isOpen(): boolean {
    return this.#open;
  }

  /** Requests that are inside now. */
  get inside(): number {
    return this.#inside;
  }

  open(): void {
    this.#open = true;
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`. */
  async pass<T>(work: () => Promise<T> | T): Promise<T> {
    this.enter();
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  /** The same in two steps, for who waits in between anyhow: each `enter` needs a `leave`. @throws AgentError `ERR_AGENT_LOCKED`, and nobody is inside. */
  enter(): void {
    if (!this.#open) throw new AgentError('ERR_AGENT_LOCKED');
    this.#inside += 1;
  }

  leave(): void {
    this.#inside -= 1;
    if (this.#inside === 0) for (const resume of this.#waiting.splice(0)) resume();
  }

  /** Closes at once for new requests and resolves when those inside are out. */
  close(): Promise<void> {
    this.#open = false;
    if (this.#inside === 0) return Promise.resolve();
    return new Promise((resume) => this.#waiting.push(resume));
  }
}
