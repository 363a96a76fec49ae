/* Exact class ids from a label PNG. A canvas returns only colours, which classes may share. */

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
