import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { repository, TempFolder } from './agent.ts';
import { type RigOptions, softHsmModule, TokenRig } from './softhsm.ts';

const planBytes = 256;
const fileBytes = 512;

/** Builds a module of the tests' own that stands before SoftHSM. */
export function buildModule(folder: TempFolder, source: string): string {
  const module = folder.join(source.replace(/\.c$/, '.so'));
  const includes = join(repository, 'node_modules', 'pkcs11js', 'includes');
  const flags = ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-I', join(includes, 'pkcs11'), '-I', includes];
  execFileSync('gcc', [...flags, '-o', module, join(repository, 'test', 'kit', source), '-ldl']);
  return module;
}

/** What a fault module counts: logins of all processes and calls that were held, and of the last one the sessions that are open and the most that were. */
export interface FaultCounts {
  readonly logins: number;
  readonly sessions: number;
  readonly peak: number;
  readonly held: number;
}

/** A module between the agent and SoftHSM that fails on schedule. */
export class FaultModule {
  readonly module: string;
  readonly env: NodeJS.ProcessEnv;
  readonly #plan: string;

  constructor(folder: TempFolder) {
    this.module = buildModule(folder, 'fault-module.c');
    this.#plan = folder.join('plan');
    writeFileSync(this.#plan, Buffer.alloc(fileBytes));
    this.env = { KMS_FAULT_REAL: softHsmModule, KMS_FAULT_PLAN: this.#plan };
  }

  get counts(): FaultCounts {
    const file = readFileSync(this.#plan);
    const [logins = 0, sessions = 0, peak = 0, held = 0] = [0, 4, 8, 12].map((offset) => file.readUInt32LE(planBytes + offset));
    return { logins, sessions, peak, held };
  }

  /**
   * @param functions - names with commas between, or *.
   * @param what - a CKR, or what the call does; `slow20` takes 20 ms, `hold` until `end`, `flip` (of C_Sign) succeeds with a wrong bit.
   * @param every - 1 for each call, or which of them: `x10` for the first of each two.
   */
  begin(functions: string, what: number | 'hang' | 'hold' | 'crash' | 'flip' | `slow${number}`, every: number | `x${string}` = 1): void {
    this.#write(`${functions} ${typeof what === 'number' ? `0x${what.toString(16)}` : what} ${every}`);
  }

  end(): void {
    this.#write('');
  }

  /** Flags of CK_TOKEN_INFO that the token has from now on beside its own. */
  addFlags(flags: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(flags);
    this.#writeAt(planBytes + 16, bytes);
  }

  #write(text: string): void {
    const bytes = Buffer.alloc(planBytes);
    bytes.write(text);
    this.#writeAt(0, bytes);
  }

  #writeAt(offset: number, bytes: Uint8Array): void {
    const fd = openSync(this.#plan, 'r+');
    writeSync(fd, bytes, 0, bytes.length, offset);
    closeSync(fd);
  }
}

/** An agent with a token behind a module that fails on schedule. */
export class FaultyRig implements AsyncDisposable {
  readonly rig: TokenRig;
  readonly fault: FaultModule;
  readonly #folder: TempFolder;

  private constructor(folder: TempFolder, fault: FaultModule, rig: TokenRig) {
    this.#folder = folder;
    this.fault = fault;
    this.rig = rig;
  }

  static async make({ env = {}, ...options }: Omit<RigOptions, 'module'> = {}): Promise<FaultyRig> {
    const folder = new TempFolder();
    const fault = new FaultModule(folder);
    return new FaultyRig(folder, fault, await TokenRig.make({ ...options, module: fault.module, env: { ...fault.env, ...env } }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
    this.#folder[Symbol.dispose]();
  }
}
