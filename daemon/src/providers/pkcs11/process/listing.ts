import { setImmediate } from 'node:timers/promises';
import { type Calls, type ListedObject, TokenFailure } from '../messages.ts';
import { CKA_ID, CKA_LABEL, CKO_PRIVATE_KEY, CKO_SECRET_KEY } from './cryptoki.ts';
import type { Handle } from './pkcs11js.ts';
import { everyKey, formatId } from './template.ts';
import type { Token } from './token.ts';

/** CKA_ID of ours: a UUID. */
const idLength = 16;
/** Milliseconds that a page takes; attributes of one object may take some on a network, and there may be a hundred thousand. */
const pageMs = 100;

const cutOff = (): TokenFailure => new TokenFailure({ kind: 'failed', rv: 'the list was cut off', call: 'list' });

/** Lists the key objects of a token page by page, and lets other calls have their turn after each object: no call is asynchronous that reads one. */
export class Listing {
  readonly #token: Token;
  #handles: readonly Handle[] = [];

  constructor(token: Token) {
    this.#token = token;
  }

  /**
   * Objects from one place in the list on; the last page is answered only when the token as a whole is well, for one that shows nothing may be away.
   * @throws TokenFailure of kind `failed` when the list was begun in another helper, or before handles ceased to hold.
   */
  async page(from: number): Promise<Calls['list']['gives']> {
    if (from === 0) this.#handles = await this.#findAll();
    const handles = this.#handles;
    if (from > 0 && from >= handles.length) throw cutOff();
    const objects: ListedObject[] = [];
    const end = performance.now() + pageMs;
    for (let next = from; next < handles.length; next += 1) {
      if (performance.now() > end) return { objects, next };
      objects.push(...(await this.#read(handles[next])));
      await setImmediate();
      if (handles !== this.#handles) throw cutOff();
    }
    this.#handles = [];
    await this.#token.check();
    return { objects };
  }

  /** The token is logged in to anew: handles from before may be of nothing, which is not to say that nothing is there. */
  forget(): void {
    this.#handles = [];
  }

  async #findAll(): Promise<Handle[]> {
    return await this.#token.use(async (session) => [
      ...(await session.findAll(everyKey(CKO_SECRET_KEY))),
      ...(await session.findAll(everyKey(CKO_PRIVATE_KEY))),
    ]);
  }

  /** Nothing for an object that was destroyed meanwhile, or is not ours. */
  async #read(object: Handle | undefined): Promise<ListedObject[]> {
    if (!object) return [];
    try {
      const [id = Buffer.alloc(0), label = Buffer.alloc(0)] = await this.#token.use((session) => session.attributes(object, CKA_ID, CKA_LABEL));
      return id.length === idLength ? [{ keyVersionId: formatId(id), label: label.toString('utf8') }] : [];
    } catch (error) {
      if (error instanceof TokenFailure && error.failure.kind === 'fault' && error.failure.rv === 'CKR_OBJECT_HANDLE_INVALID') return [];
      throw error;
    }
  }
}
