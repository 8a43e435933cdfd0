/** Pieces of the given sizes, over and over, until the bytes are used up. */
export async function* inPieces(bytes: Uint8Array, ...sizes: readonly number[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (let offset = 0, turn = 0; offset < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? bytes.length;
    yield bytes.subarray(offset, offset + size);
    offset += size;
  }
}

/** All of a stream, and what ended it if that was an error. */
export async function drain(stream: AsyncIterable<Uint8Array>): Promise<{ bytes: Buffer; error: unknown }> {
  const pieces: Uint8Array[] = [];
  try {
    for await (const piece of stream) pieces.push(piece);
    return { bytes: Buffer.concat(pieces), error: undefined };
  } catch (error) {
    return { bytes: Buffer.concat(pieces), error };
  }
}

/** All of a stream. @throws what ended it. */
export async function collectBytes(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const { bytes, error } = await drain(stream);
  if (error !== undefined) throw error;
  return bytes;
}
