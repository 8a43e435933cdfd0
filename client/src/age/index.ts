export { decryptFile, encryptFile, type FileOptions, type Progress } from './file.ts';
export { type AgentKeyOptions, agentIdentity, agentRecipient } from './header.ts';
export type { ByteSource } from './source.ts';
export { type DecryptStreamOptions, decryptStream, type EncryptStreamOptions, encryptStream } from './stream.ts';
