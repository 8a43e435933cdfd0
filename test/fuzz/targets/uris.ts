import fc from 'fast-check';
import { formatTokenUri, parseTokenUri } from '../../../daemon/src/providers/pkcs11/uri.ts';
import { byteChanges, changeText } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }).filter((text) => text.isWellFormed());
const asked = fc.record({ label: name, serial: name, changes: byteChanges });

/** PKCS#11 URIs. */
export const uris: Target = {
  name: 'uris',
  promise: 'a URI that was formatted names the same token again, and what is none is a TypeError that says why',
  runs: 3000,
  open: () =>
    prove(asked, ({ label, serial, changes }) => {
      const uri = formatTokenUri({ label, serial });
      const { token, serial: again } = parseTokenUri(uri);
      must(token === label && again === serial, `${uri} is read as ${JSON.stringify({ token, again })}`);
      try {
        parseTokenUri(changeText(uri, changes));
      } catch (error) {
        must(error instanceof TypeError && error.message.length > 10, `it fails with ${String(error)}`);
      }
    }),
};
