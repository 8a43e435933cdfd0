import { createHash, randomBytes, verify } from 'node:crypto';
import { type Handle, loadPkcs11js, type PKCS11 } from '../../../daemon/src/providers/pkcs11/process/pkcs11js.ts';
import { type Session, type WorkSpec, WrongAnswer } from './work.ts';

type Spec = Extract<WorkSpec, { kind: 'pkcs11' }>;

const ckfOsLockingOk = 2;
const ckfSerialSession = 4;
const ckuUser = 1;
const [ckaClass, ckaId] = [0, 0x102];
const ckoPrivateKey = 3;
const ckmEcdsa = 0x1041;

let loaded: Promise<{ token: PKCS11; slot: Handle }> | undefined;

/** A module may be loaded once in a process. */
async function loadModule({ module, label, pin }: Spec): Promise<{ token: PKCS11; slot: Handle }> {
  const token = await loadPkcs11js();
  token.load(module);
  token.C_Initialize({ flags: ckfOsLockingOk });
  const slot = token.C_GetSlotList(true).find((candidate) => token.C_GetTokenInfo(candidate).label.trim() === label);
  if (!slot) throw new Error(`${module} shows no token ${label}`);
  token.C_Login(token.C_OpenSession(slot, ckfSerialSession), ckuUser, pin);
  return { token, slot };
}

/** A token in this process through pkcs11js, asynchronous, one session for each of its callers. */
export async function openPkcs11(spec: Spec): Promise<Session> {
  loaded ??= loadModule(spec);
  const { token, slot } = await loaded;
  const session = token.C_OpenSession(slot, ckfSerialSession);
  token.C_FindObjectsInit(session, [
    { type: ckaClass, value: ckoPrivateKey },
    { type: ckaId, value: Buffer.from(spec.id, 'hex') },
  ]);
  const [key] = token.C_FindObjects(session, 1);
  token.C_FindObjectsFinal(session);
  if (!key) throw new Error(`the token has no private key ${spec.id}`);
  const message = randomBytes(1024);
  const output = Buffer.alloc(64);
  return {
    call: async (check) => {
      const digest = createHash('sha256').update(message).digest();
      token.C_SignInit(session, { mechanism: ckmEcdsa }, key);
      const signature = await token.C_SignAsync(session, digest, output);
      if (check && !verify('sha256', message, { key: spec.publicKey, dsaEncoding: 'ieee-p1363' }, signature)) throw new WrongAnswer('the token');
    },
    close: () => token.C_CloseSession(session),
  };
}
