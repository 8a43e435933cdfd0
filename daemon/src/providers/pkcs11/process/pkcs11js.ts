/*
 * What is used of pkcs11js 2.1, an optional dependency: neither the build nor the agent needs it before a token does.
 * Each call throws an error whose `code` is the CKR.
 */
export type Handle = Buffer;
export interface IParams {
  type: number;
}
export interface GcmParams extends IParams {
  iv: Buffer;
  ivBits: number;
  aad?: Buffer;
  tagBits: number;
}
export interface RsaOAEP extends IParams {
  hashAlg: number;
  mgf: number;
  source: number;
}
export interface RsaPSS extends IParams {
  hashAlg: number;
  mgf: number;
  saltLen: number;
}
export interface Mechanism {
  mechanism: number;
  parameter?: Buffer | IParams;
}
export type Template = { type: number; value?: number | boolean | string | Buffer }[];
export interface TokenInfo {
  label: string;
  manufacturerID: string;
  model: string;
  serialNumber: string;
  flags: number;
  firmwareVersion: { major: number; minor: number };
}
export interface KeyPair {
  publicKey: Handle;
  privateKey: Handle;
}

export interface PKCS11 {
  load(path: string): void;
  C_Initialize(options: { flags: number }): void;
  C_Finalize(): void;
  C_GetInfo(): { libraryDescription: string };
  C_GetSlotList(tokenPresent: boolean): Handle[];
  C_GetTokenInfo(slot: Handle): TokenInfo;
  C_GetMechanismList(slot: Handle): number[];
  C_GetMechanismInfo(slot: Handle, mechanism: number): { maxKeySize: number };
  C_OpenSession(slot: Handle, flags: number): Handle;
  C_CloseSession(session: Handle): void;
  C_GetSessionInfo(session: Handle): { state: number };
  C_Login(session: Handle, userType: number, pin: string): void;
  C_FindObjectsInit(session: Handle, template: Template): void;
  C_FindObjects(session: Handle, limit: number): Handle[];
  C_FindObjectsFinal(session: Handle): void;
  C_GetAttributeValue(session: Handle, object: Handle, template: { type: number }[]): { type: number; value: Buffer }[];
  C_CreateObject(session: Handle, template: Template): Handle;
  C_DestroyObject(session: Handle, object: Handle): void;
  C_GenerateRandom(session: Handle, buffer: Buffer): Buffer;
  C_GenerateKeyAsync(session: Handle, mechanism: Mechanism, template: Template): Promise<Handle>;
  C_GenerateKeyPairAsync(session: Handle, mechanism: Mechanism, publicTemplate: Template, privateTemplate: Template): Promise<KeyPair>;
  C_WrapKey(session: Handle, mechanism: Mechanism, wrappingKey: Handle, key: Handle, output: Buffer): Buffer;
  C_UnwrapKey(session: Handle, mechanism: Mechanism, wrappingKey: Handle, wrapped: Buffer, template: Template): Handle;
  C_EncryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_EncryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
  C_DecryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_DecryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
  C_SignInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_SignAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
}

/** Loads the package. @throws Error where it is not installed. */
export async function loadPkcs11js(): Promise<PKCS11> {
  const name: string = 'pkcs11js'; // no literal in the import, so that its types are not asked for
  const loaded = (await import(name)) as { default: { PKCS11: new () => PKCS11 } };
  return new loaded.default.PKCS11();
}
