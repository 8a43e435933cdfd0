import type { KeySpec } from '@kms-agent/protocol';
import type { MaterialRef } from '../provider.ts';

const fromBase64 = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text, 'base64'));

const testKey = (keySpec: KeySpec, material: Uint8Array): MaterialRef => ({ keyVersionId: `self-test ${keySpec}`, keySpec, material });

/** What every answer below was made of. */
export const message = new TextEncoder().encode('kms-agent self-test');

/** Test case 14 of the GCM specification (McGrew and Viega, appendix B): key, IV and plaintext all zero. */
export const aesKey = testKey('AES_256', new Uint8Array(32));
export const gcmCiphertext = new Uint8Array(Buffer.from('cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919', 'hex'));

/** Keys made for the self-test and for nothing else, PKCS#8 DER; their answers were made by the openssl library outside of the agent. */
export const rsaKey = testKey(
  'RSA_2048',
  fromBase64(
    'MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCzIoG45OPqk573h6oGiDEp/uUWSyLc6S7kbr3wdC6tCSGJlzp/j3RftENhflUEjXI1uk3/ZYphY25Z5MZy+qL/vrZCVa0LKpwbDuEJwS3GcQfkPXNXfllwPLA7W+5VqEwYMoZ9ENtv9Nk8/E/j6S4ISzOpjoiTiMDFOg0Q8t00Biyg5DFk3c3QXGWHMlapsH67gS3pswAY1LgbAnNNzgsb5uqC3SRnYk1AI/mqmNVnn+ME2akweiqIFGIBCKgpC5lPdsLHHjWG0ulEaTWsgii7hXPpyizyTeO6LGVy3QUKWbXYM71LoJRPh+F9HYDlDn42RMW/NjExe2Lv1/mikhRnAgMBAAECggEAAY+l/uiCCbGYOVm8dnPTHCW59V9+QgBQhbtnDO2xtLoON1bAoJ2tb2JegIfdmvREC2WJrsNBxubtgLJ7IozQoI3yW4kQwLa7NPkpFFWKXgOBBKx6I2zGv+fwomGDAVyritAoMi0dbr3GGAiJvSC8h/aLPiUK/oUEAjQCc/+lRCaAJ+UhqTKZUHWuOYtLyjgFro2i/W3ksiWseKEl4NnTLV29waA+9hMwDpQkN7zUPQ7s17q60M9xzaEgouGRvWBIk0XsCiD8+B6ggcIVQIUKXRvuITef3KQplMP64gHO8NANcK+7ueAncxzZFgO11s5PRuEX9cyHuCIXAd9wJOEfcQKBgQDutpQLBZgXzaRktmnm3yn/2t5PfAEfTIFZqJj+ke4WxwrVAzdWwrfrnef3s+t2ptnNVpnyavjBw5cn2ZeONMzU+hFee/lGM+qEY75UgzzhwiIAOquZ17ylkt8jNlQ/NcB6cqLo6lW7RaYabCTF83Wiu1BL6vR6jWqxHj6/G/f63QKBgQDAG2zHdQ4HoAw3+XdJVU2NOAZzh41S4pI6MmwsgZxS8v3GIF3zymCveSo75xiy0EKbeGXCwnGCqtfnzhbLSIA6vEPDS1LuDxY3Xs1jY2icdDK+mXVuOvTnrbWpE+JggnLT2I2zAKhhf9LVR20T+RYRHlOiqmqGk1/W2JIMqiXuEwKBgQCM6vs6BnNimeMSER0zTUpd37ac9Xc0ItW5N+4ZWcxTZezfEqb4cLpiPTVS5MN7p8OrlBQNJ1jyCaSRwcHWERVaJMVcIZNl/f/TZ45UFaU7IH8x43CpwNF8bNeM0eWp6vFVV5cUKEGz68nCj1SmBrLK/gjIyErKjfEN3ezspHYfgQKBgQCk7ybevG4WN+AlsqYqrPVPWJmZWPkJ/4LCOoZLU+AuC3e8Qg/H/qoyHZoYIho/c7SsHJtpsl2YbSu/Vl6Vm6KUSwz2wFXsE8HkOh2mxjOLl+v1XnXG9RFNVAPSrUK/z1/c6GEIHXlzdDZEbPWGn2XFvr7ZuuyIrEEtiXUjMHYuRwKBgFFlp6frkQ8Mj3yTBTx4to8dsQ5ODbjhWINQkx6yKSiFjGg/NZPnaX/eeTfVfqGYqgYSiX9fEoiDsUHn1RAiWBfyDEZETnCwJxMgClTM4484NGI+lIww9U/bQYieqAE1BtP3RpENyPUTJmLAuo0l1JKAQgU74lg33w/nXF7RhCA7',
  ),
);
export const p256Key = testKey(
  'EC_P256',
  fromBase64(
    'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfJis+ewo4HdVRFDmmboO66O9d3vWL7snzP6ZG5wGik2hRANCAARVkm1iN2VbwKFmdx2V0Ko0v61gNa7YjHQJDl83/kYZmeUe4GdyF1V+ytRODR3V//i0VP4n1wDdtUPTTnMGdhtD',
  ),
);
export const p256kKey = testKey(
  'EC_P256K',
  fromBase64(
    'MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQge+W9jij3fQDCJpPazGd6OSkTwwqBkTecHB1KIKyz+lChRANCAARYeNU/u1OnsVmPWc6YAzRW77P6emMqCLYh/CnMVEm8zjKE7fQQq8nx7+NZ74wbrRfzU71Ze2u13RVYJ3IWJw4x',
  ),
);

/** RSAES-OAEP ciphertexts of the message (RFC 8017 section 7.1). */
export const oaepCiphertexts = [
  {
    algorithm: 'RSAES_OAEP_SHA_256',
    ciphertext: fromBase64(
      'HSCALGxWilJLQsAa12B68GI4q+rqY/zRr2wCGbr6q3Q3YSrqn3Iplhw2jj/V1Z/ZgMxxTULa+4DyxNKVcqR8bYubkiNSkx4QJAEv1SEk6Jd00GI3U9HaP9JIb746/HO9BSrEqKlzFY9Y6iVu9L8+bsvAsHlFyqoDtrpOpIJ3fsaYp9nMiZB/2X4P/0FxYOcWmOu+z2qjQMGAnkYBDkgUeK9cwODChKTOkkEi96OJfes0TOXKL0fSKxykXkJ9bN9BCz24MRC1ftIAFPIPtlv++P+mrQLPKoO5exc96H9KH+WDybxfz56J88KOsRcG+mgfX59nY+iNtamgq2y78Rm/Qg==',
    ),
  },
  {
    algorithm: 'RSAES_OAEP_SHA_1',
    ciphertext: fromBase64(
      'UKeItvRkZUFpcavfD8AgBWsCLIhhJEmv2u1V+fP2AUaZ1g+fjI0zuYxt1E610NRMhrx1YSPd2kpJd6up+KcPA7jhN+85shiAWavoAnG70Cek6ErdlAdxM8vlK1yLKOeR/sYTZYyrkvppai0y/6YQEjxuA1r0xDJE1bv2tnubKmbrDW7uUfnwGPFOhn/omNjlOJK1Nx9laYSxpxV1yqLpM42EfxlbFpsQKebhTk3gJ70OHSSRdXkApNw52txhJ7xgSrokynqC8owqrRQFEwKQF4+gIC8A0jYFE4jzH2O95Frk6jD61dl3pnylVX3wrX1lE7rCv2z7bJ6PDFa0oG/R7g==',
    ),
  },
] as const;

/** Signatures of the message. */
export const signatures = [
  {
    ref: rsaKey,
    algorithm: 'RSA_PKCS1_SHA_256',
    signature: fromBase64(
      'F3WGD8fuyH21GeHvHgRshgTjdfwFif6IQ0vY8+L85PSGYzcqao21LUn9Vbfn3fsLzk2VuzfxhdyY8alTyDxCRLgyZe7573Ir3uvIcu4M+kIPbo8CGZn3v4fMP9bqK92jiHsI8+pc7IfJv5TKZW38bqQDyXSy1Qv8EebZcsn3zlES9ZedtkE981gk5TdUPQr3gcoWUc3QaojDQNat9VGiek+9GcdRRS2DEl/WWjNpeQJ7DswrkEBSDEQ5ZJLVqRrmHUD4oaa5fdYXGOPyVO1OlL+VQGTsEtQfd1R+Yj6A3ZYnAqtfWYQ9Tg3zoZLk2ROh9CVfklohE0c/f7mQKlw1OQ==',
    ),
  },
  {
    ref: rsaKey,
    algorithm: 'RSA_PSS_SHA_256',
    signature: fromBase64(
      'jJzl9ivQ6NLAkSzD/3CKjupuRZ+SXEuDdftOPyw1C9NGCPfWFuR5nbUxIpE6HuJFP00KRrIoynx5o4v5CLMIeRnCxkHyLhGOPh/Ts4YSBoUHHXE88UPxJN0CWMiSMouMbgDEYTc0au+TEm/d3q11RWdZZ8PHY6RUaEQEeVWvm8eJeiM+NCt6AUTWv8EyQBzM6qb09hB4NT2CWtIdu7d+NzN0v6ihnP/l8cumWF35oMVr3xe5IVwQLQYa4XEXUWQA3b/eUzFd/7QiQ3UGFT2c3T5oqxDT2M44yqb0FRq97DR9XDMWIPuuTxybLD/0ShXZKzHKiFYfj2xRmdbuutJcQw==',
    ),
  },
  {
    ref: p256Key,
    algorithm: 'ECDSA_SHA_256',
    signature: fromBase64('MEUCIQDhyFgxKxf65EyqPj3XJfMaiZwFkSSKAkK5AYww0FS2EQIgHerUT1PsO3Q+PoYKU/4bNVLRxBKQxTraih2r54Dzknk='),
  },
  {
    ref: p256kKey,
    algorithm: 'ECDSA_SHA_256',
    signature: fromBase64('MEQCIAyoAsn3y+YXSbOXLVIHHrGLFQEF5GP+9PpoW92DuDYmAiByE4njQkIuLRURuof0Wx/aCPLyTvT7yOUlWQ8Jy9+RMA=='),
  },
] as const;
