/** The numbers of PKCS#11 v2.40 (OASIS, pkcs11t.h) that the helper uses; pkcs11js knows most of them, but not all. */
export const CKU_USER = 1;
export const CKF_OS_LOCKING_OK = 2;
export const CKF_RW_SERIAL_SESSION = 6;
export const CKF_LOGIN_REQUIRED = 0x4;
export const CKF_USER_PIN_FINAL_TRY = 0x2_0000;
export const CKF_USER_PIN_LOCKED = 0x4_0000;
/** User functions of a read-write session: logged in. */
export const CKS_RW_USER_FUNCTIONS = 3;

export const CKO_PUBLIC_KEY = 2;
export const CKO_PRIVATE_KEY = 3;
export const CKO_SECRET_KEY = 4;

export const CKK_RSA = 0;
export const CKK_EC = 3;
export const CKK_AES = 0x1f;

export const CKA_CLASS = 0x0;
export const CKA_TOKEN = 0x1;
export const CKA_PRIVATE = 0x2;
export const CKA_LABEL = 0x3;
export const CKA_VALUE = 0x11;
export const CKA_KEY_TYPE = 0x100;
export const CKA_ID = 0x102;
export const CKA_SENSITIVE = 0x103;
export const CKA_ENCRYPT = 0x104;
export const CKA_DECRYPT = 0x105;
export const CKA_WRAP = 0x106;
export const CKA_UNWRAP = 0x107;
export const CKA_SIGN = 0x108;
export const CKA_VERIFY = 0x10a;
export const CKA_DERIVE = 0x10c;
export const CKA_MODULUS = 0x120;
export const CKA_MODULUS_BITS = 0x121;
export const CKA_PUBLIC_EXPONENT = 0x122;
export const CKA_PRIVATE_EXPONENT = 0x123;
export const CKA_PRIME_1 = 0x124;
export const CKA_PRIME_2 = 0x125;
export const CKA_EXPONENT_1 = 0x126;
export const CKA_EXPONENT_2 = 0x127;
export const CKA_COEFFICIENT = 0x128;
export const CKA_VALUE_LEN = 0x161;
export const CKA_EXTRACTABLE = 0x162;
export const CKA_EC_PARAMS = 0x180;
export const CKA_EC_POINT = 0x181;

export const CKM_RSA_PKCS_KEY_PAIR_GEN = 0x0;
export const CKM_RSA_PKCS = 0x1;
export const CKM_RSA_X_509 = 0x3;
export const CKM_RSA_PKCS_OAEP = 0x9;
export const CKM_RSA_PKCS_PSS = 0xd;
export const CKM_SHA_1 = 0x220;
export const CKM_SHA256 = 0x250;
export const CKM_EC_KEY_PAIR_GEN = 0x1040;
export const CKM_ECDSA = 0x1041;
export const CKM_AES_KEY_GEN = 0x1080;
export const CKM_AES_ECB = 0x1081;
export const CKM_AES_CBC = 0x1082;
export const CKM_AES_GCM = 0x1087;
export const CKM_AES_KEY_WRAP = 0x2109;

export const CKG_MGF1_SHA1 = 1;
export const CKG_MGF1_SHA256 = 2;

/** Names of the mechanisms above, for people. */
export const mechanismNames: Readonly<Record<number, string>> = {
  [CKM_RSA_PKCS_KEY_PAIR_GEN]: 'RSA_PKCS_KEY_PAIR_GEN',
  [CKM_RSA_PKCS]: 'RSA_PKCS',
  [CKM_RSA_X_509]: 'RSA_X_509',
  [CKM_RSA_PKCS_OAEP]: 'RSA_PKCS_OAEP',
  [CKM_RSA_PKCS_PSS]: 'RSA_PKCS_PSS',
  [CKM_EC_KEY_PAIR_GEN]: 'EC_KEY_PAIR_GEN',
  [CKM_ECDSA]: 'ECDSA',
  [CKM_AES_KEY_GEN]: 'AES_KEY_GEN',
  [CKM_AES_ECB]: 'AES_ECB',
  [CKM_AES_CBC]: 'AES_CBC',
  [CKM_AES_GCM]: 'AES_GCM',
  [CKM_AES_KEY_WRAP]: 'AES_KEY_WRAP',
};

/** The name of a mechanism as PKCS#11 has it. */
export const nameOfMechanism = (mechanism: number): string => `CKM_${mechanismNames[mechanism] ?? mechanism.toString(16)}`;
