/** Masks and maps as the server sends and takes them: PNG with 8 bits of grey, the slices below each other. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

/** Decode a PNG into one byte per pixel, in rows. Throws if it is not an 8-bit greyscale PNG. */
export async function decodePng(content) {
  const bytes = new Uint8Array(content);
  const view = new DataView(content);
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) throw new Error("not a PNG");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  if (bytes[24] !== 8 || bytes[25] !== 0 || bytes[28] !== 0) throw new Error("not 8 bits of grey");
  const data = [];
  for (let start = 8; start < bytes.length;) {
    const length = view.getUint32(start);
    const kind = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
    if (kind === "IDAT") data.push(bytes.subarray(start + 8, start + 8 + length));
    start += 12 + length;
  }
  return undoFilters(new Uint8Array(await transformBytes(data, new DecompressionStream("deflate"))), width, height);
}

/** Encode one byte per pixel, in rows, as a PNG. */
export async function encodePng(pixels, width, height) {
  const rows = new Uint8Array((width + 1) * height);
  for (let row = 0; row < height; row++) {
    rows.set(pixels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1);
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 8;
  const data = new Uint8Array(await transformBytes([rows], new CompressionStream("deflate")));
  return new Blob([
    Uint8Array.from(SIGNATURE),
    createChunk("IHDR", header),
    createChunk("IDAT", data),
    createChunk("IEND", new Uint8Array(0)),
  ]);
}

/** Return the bytes of a stream of chunks after compression or decompression. */
export function transformBytes(chunks, transform) {
  return new Response(new Blob(chunks).stream().pipeThrough(transform)).arrayBuffer();
}

function createChunk(kind, data) {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(
    [...kind].map((letter) => letter.charCodeAt(0)),
    4,
  );
  chunk.set(data, 8);
  let crc = 0xffffffff;
  for (const byte of chunk.subarray(4, 8 + data.length)) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, (crc ^ 0xffffffff) >>> 0);
  return chunk;
}

/** Undo the filter of each row; the first byte of a row names it (PNG specification, section 9). */
function undoFilters(rows, width, height) {
  if (rows.length !== (width + 1) * height) throw new Error("incomplete PNG");
  const pixels = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const filter = rows[row * (width + 1)];
    const [source, target] = [row * (width + 1) + 1, row * width];
    pixels.set(rows.subarray(source, source + width), target);
    if (filter === 0) continue;
    for (let column = 0; column < width; column++) {
      const left = column ? pixels[target + column - 1] : 0;
      const above = row ? pixels[target + column - width] : 0;
      const corner = row && column ? pixels[target + column - width - 1] : 0;
      pixels[target + column] += predict(filter, left, above, corner);
    }
  }
  return pixels;
}

function predict(filter, left, above, corner) {
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return (left + above) >> 1;
  const [toLeft, toAbove] = [Math.abs(above - corner), Math.abs(left - corner)];
  const toCorner = Math.abs(left + above - 2 * corner);
  return toLeft <= toAbove && toLeft <= toCorner ? left : toAbove <= toCorner ? above : corner;
}
