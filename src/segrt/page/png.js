/* Exact class ids from and to a label PNG. A canvas knows only colours, which classes may share. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/**
 * Undo the filter of a row (PNG specification, section 9.2); `row` and `above` are bytes, `step` is
 * the number of bytes per pixel.
 */
function unfilter(kind, row, above, step) {
  for (let i = 0; i < row.length; i++) {
    const left = i < step ? 0 : row[i - step];
    const up = above[i];
    const corner = i < step ? 0 : above[i - step];
    if (kind === 1) row[i] += left;
    else if (kind === 2) row[i] += up;
    else if (kind === 3) row[i] += (left + up) >> 1;
    else if (kind === 4) {
      const a = Math.abs(up - corner);
      const b = Math.abs(left - corner);
      const c = Math.abs(left + up - 2 * corner);
      row[i] += a <= b && a <= c ? left : b <= c ? up : corner;
    }
  }
}

/**
 * Decode a single-channel PNG: palette indices or grey values of 1 to 16 bits.
 *
 * @param {Uint8Array} bytes the file
 * @returns {Promise<{width: number, height: number, labels: Uint16Array}>} class ids, row by row
 */
export async function decodeLabels(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!SIGNATURE.every((value, i) => bytes[i] === value)) {
    throw new Error("the label map is not a PNG");
  }
  let header = null;
  const packed = [];
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (type === "IHDR") header = at + 8;
    if (type === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const [width, height] = [view.getUint32(header), view.getUint32(header + 4)];
  const [bits, colour, interlaced] = [bytes[header + 8], bytes[header + 9], bytes[header + 12]];
  if ((colour !== 0 && colour !== 3) || interlaced) {
    throw new Error("the label map is a PNG of an unsupported type");
  }

  const unpacked = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = new Uint8Array(await new Response(unpacked).arrayBuffer());
  const rowBytes = Math.ceil((width * bits) / 8);
  const step = Math.max(1, bits >> 3);
  const labels = new Uint16Array(width * height);
  let above = new Uint8Array(rowBytes);
  for (let y = 0, out = 0; y < height; y++) {
    const start = y * (rowBytes + 1);
    const row = data.subarray(start + 1, start + 1 + rowBytes);
    unfilter(data[start], row, above, step);
    above = row;
    for (let x = 0; x < width; x++, out++) {
      if (bits === 8) labels[out] = row[x];
      else if (bits === 16) labels[out] = (row[2 * x] << 8) | row[2 * x + 1];
      else {
        const bit = x * bits;
        labels[out] = (row[bit >> 3] >> (8 - bits - (bit & 7))) & ((1 << bits) - 1);
      }
    }
  }
  return { width, height, labels };
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** A chunk of a PNG: length, type, data and checksum. */
function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(Array.from(type, (letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < bytes.length - 4; i++) crc = CRC[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  view.setUint32(bytes.length - 4, ~crc >>> 0);
  return bytes;
}

/**
 * Encode class ids as a PNG: palette indices of 8 bits, or grey values of 16 bits for more than 256
 * classes.
 *
 * @param {Uint16Array} labels row by row
 * @param {number} width
 * @param {number} height
 * @param {number[][]} palette (R, G, B) of each class
 * @returns {Promise<Uint8Array>}
 */
export async function encodeLabels(labels, width, height, palette) {
  const wide = palette.length > 256;
  const rowBytes = wide ? 2 * width : width;
  const rows = new Uint8Array(height * (rowBytes + 1)); // each row begins with filter 0
  for (let y = 0, i = 0; y < height; y++) {
    let at = y * (rowBytes + 1) + 1;
    for (let x = 0; x < width; x++, i++) {
      if (wide) rows[at++] = labels[i] >> 8;
      rows[at++] = labels[i];
    }
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set(wide ? [16, 0] : [8, 3], 8);
  const parts = [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    ...(wide ? [] : [chunk("PLTE", Uint8Array.from(palette.flat()))]),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", new Uint8Array(0)),
  ];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
