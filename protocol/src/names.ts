/** The closed sets of names of the protocol, each spelt as on the wire. */

export const keySpecs = ['AES_256', 'AES_192', 'AES_128', 'RSA_2048', 'RSA_3072', 'RSA_4096', 'EC_P256', 'EC_P256K'] as const;
export type KeySpec = (typeof keySpecs)[number];

export const keyUsages = ['ENCRYPT_DECRYPT', 'SIGN_VERIFY'] as const;
export type KeyUsage = (typeof keyUsages)[number];

export const encryptionAlgorithms = ['AES_GCM', 'AES_CBC', 'AES_ECB', 'RSAES_OAEP_SHA_256', 'RSAES_OAEP_SHA_1'] as const;
export type EncryptionAlgorithm = (typeof encryptionAlgorithms)[number];

export const signingAlgorithms = ['RSA_PSS_SHA_256', 'RSA_PKCS1_SHA_256', 'ECDSA_SHA_256'] as const;
export type SigningAlgorithm = (typeof signingAlgorithms)[number];

export const paddingModes = ['PKCS7_PADDING', 'NO_PADDING'] as const;
export type PaddingMode = (typeof paddingModes)[number];

export const messageTypes = ['RAW', 'DIGEST'] as const;
export type MessageType = (typeof messageTypes)[number];

export const signatureFormats = ['DER', 'P1363'] as const;
export type SignatureFormat = (typeof signatureFormats)[number];

export const protectionLevels = ['SOFTWARE', 'HSM'] as const;
export type ProtectionLevel = (typeof protectionLevels)[number];

export const origins = ['GENERATED', 'EXTERNAL'] as const;
export type Origin = (typeof origins)[number];

export const importWrappingKeySpecs = ['RSA_3072', 'RSA_4096', 'RSA_2048'] as const;
export type ImportWrappingKeySpec = (typeof importWrappingKeySpecs)[number];

export const importWrappingAlgorithms = ['RSAES_OAEP_SHA_256', 'RSA_AES_KEY_WRAP_SHA_256', 'RSAES_OAEP_SHA_1'] as const;
export type ImportWrappingAlgorithm = (typeof importWrappingAlgorithms)[number];

export const keyStates = ['Enabled', 'Disabled', 'PendingDeletion', 'PendingImport', 'Unavailable'] as const;
export type KeyState = (typeof keyStates)[number];

export const keyTypes = ['DEFAULT', 'SOFTWARE', 'HARDWARE'] as const;
export type KeyType = (typeof keyTypes)[number];

export const agentStates = ['UNINITIALIZED', 'LOCKED', 'UNLOCKED'] as const;
export type AgentState = (typeof agentStates)[number];

export const keyslotTypes = ['passphrase', 'recovery', 'keychain', 'credential', 'hsm'] as const;
export type KeyslotType = (typeof keyslotTypes)[number];

/** Facts about the caller that a policy may put under the seal of a ciphertext; the bit of each in a blob's `bound` byte is its place here. */
export const bindableFacts = ['user', 'unit', 'host'] as const;
export type BindableFact = (typeof bindableFacts)[number];

/** What decided about a call. */
export const explainRules = ['administrator', 'everyone', 'agentPolicy', 'keyPolicy', 'noStatement'] as const;
export type ExplainRule = (typeof explainRules)[number];

/** Longest policy, in bytes of its JSON. */
export const maxPolicyBytes = 32_768;
