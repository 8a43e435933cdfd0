import type { TokenPins } from './pins.ts';

/** The PIN that a helper is opened with, and which token is known to have taken it. */
export class HeldPin {
  readonly #pins: TokenPins;
  #bytes: Uint8Array | undefined;
  #isOfSource = false;
  /** Serial number of the token that has taken it. */
  #taker: string | undefined;

  constructor(pins: TokenPins) {
    this.#pins = pins;
  }

  get bytes(): Uint8Array | undefined {
    return this.#bytes;
  }

  /** Whether there is one that the token has taken, and no other of its label. */
  get isTaken(): boolean {
    return this.#bytes !== undefined && this.#taker !== undefined && this.#taker === this.#pins.serial;
  }

  /** Takes a person's over, or forgets what is held. @param taker - serial number of the token that is known to have taken it before. */
  set(bytes: Uint8Array | undefined, taker?: string): void {
    this.#hold(bytes, taker);
    this.#isOfSource = false;
    if (bytes) this.#pins.doubtSource();
  }

  /** Takes over what was read of its source just now. */
  setRead(bytes: Uint8Array | undefined): void {
    this.#hold(bytes, this.#pins.keepsTaken ? this.#pins.serial : undefined);
    this.#isOfSource = true;
  }

  #hold(bytes: Uint8Array | undefined, taker: string | undefined): void {
    if (this.#bytes !== bytes) this.#bytes?.fill(0);
    this.#bytes = bytes;
    this.#taker = taker;
  }

  /** A token has taken it. */
  noteTaker(serial: string): void {
    this.#taker = serial;
    if (this.#isOfSource) this.#pins.noteTaken(serial);
  }
}
