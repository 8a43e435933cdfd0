import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { repository, type TempFolder } from './agent.ts';
import { softHsmModule } from './softhsm.ts';

const planBytes = 256;

/** A module between the agent and SoftHSM that fails on schedule. */
export class FaultModule {
  readonly module: string;
  readonly env: NodeJS.ProcessEnv;
  readonly #plan: string;

  constructor(folder: TempFolder) {
    this.module = folder.join('fault.so');
    this.#plan = folder.join('plan');
    const includes = join(repository, 'node_modules', 'pkcs11js', 'includes');
    const source = join(repository, 'test', 'kit', 'fault-module.c');
    execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-I', join(includes, 'pkcs11'), '-I', includes, '-o', this.module, source, '-ldl']);
    writeFileSync(this.#plan, Buffer.alloc(planBytes));
    this.env = { KMS_FAULT_REAL: softHsmModule, KMS_FAULT_PLAN: this.#plan };
  }

  /** @param functions - names with commas between, or *. @param what - a CKR, `hang`, `hold` (until `end`) or `crash`. @param every - 1 for each call. */
  begin(functions: string, what: number | 'hang' | 'hold' | 'crash', every = 1): void {
    this.#write(`${functions} ${typeof what === 'number' ? `0x${what.toString(16)}` : what} ${every}`);
  }

  end(): void {
    this.#write('');
  }

  #write(text: string): void {
    const bytes = Buffer.alloc(planBytes);
    bytes.write(text);
    const fd = openSync(this.#plan, 'r+');
    writeSync(fd, bytes, 0, planBytes, 0);
    closeSync(fd);
  }
}
