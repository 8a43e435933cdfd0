import { ifUnsaid } from '@kms-agent/protocol/terminal';

/** A recovery code is known from now on and shown only once: what a person must hear if that cannot be. @param dataDir - of its vault. */
export function oweRecoveryCode(dataDir: string): void {
  ifUnsaid(
    `The vault in ${dataDir} is whole, and its passphrase opens it. Unless you have seen its recovery code, nobody has it. ` +
      'Make another once the agent runs: kms keyslot add recovery; then remove the old one: kms keyslot list, kms keyslot remove.',
  );
}
