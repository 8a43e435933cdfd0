/** What is asked again and again, and of whom. */
export type WorkSpec =
  | {
      readonly kind: 'agent';
      readonly socketPath: string;
      readonly operation: 'sign' | 'advanceEncrypt' | 'advanceDecrypt' | 'describeKey' | 'whoAmI';
      readonly keyId: string;
      readonly bytes: number;
    }
  | {
      readonly kind: 'frames';
      readonly socketPath: string;
      readonly operation: 'sign' | 'advanceEncrypt';
      readonly keyId: string;
      readonly bytes: number;
    }
  | { readonly kind: 'echo'; readonly socketPath: string; readonly requestBytes: number; readonly answerBytes: number }
  | { readonly kind: 'ssh-agent'; readonly socketPath: string; readonly publicKey: string; readonly keyType: string }
  | { readonly kind: 'gpg-agent'; readonly socketPath: string; readonly keygrip: string }
  | { readonly kind: 'crypto'; readonly operation: CryptoOperation; readonly bytes: number; readonly threads: boolean }
  | { readonly kind: 'pkcs11'; readonly module: string; readonly label: string; readonly pin: string; readonly id: string; readonly publicKey: string };

export type CryptoOperation = 'sign EC_P256' | 'sign RSA_2048' | 'encrypt AES_256';

/** How a process makes load. */
export interface LoadSpec {
  readonly work: WorkSpec;
  readonly connections: number;
  /** Calls at once on each connection. */
  readonly inFlight: number;
  /** Calls a second on each connection; without it as many as there is time for. */
  readonly ratePerSecond?: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

/** What a load saw. Latencies in microseconds, from the call to its answer. */
export interface LoadResult {
  readonly count: number;
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly errors: number;
}

/** A connection, or what stands for one. */
export interface Session {
  /** @param check - whether the answer is compared with what node:crypto says. @throws Error on a wrong answer. */
  call(check: boolean): Promise<unknown> | undefined;
  close(): void;
}

/** A peer that answers wrongly is no peer to be compared with: it ends the bench. */
export class WrongAnswer extends Error {
  constructor(who: string) {
    super(`${who} gave a wrong answer`);
  }
}
