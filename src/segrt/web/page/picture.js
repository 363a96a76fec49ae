/* From a picture's file to its pixels, as the browser decodes it. */

/** Limit on the pixels of a picture: each of them takes 12 bytes in a browser. */
const MAX_PIXELS = 64_000_000;

const HEAD = 1 << 18; // bytes; metadata may precede the size of a JPEG

/** [width, height] in the header of a PNG or JPEG; null for other formats. */
function statedSize(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length >= 24 && view.getUint32(0) === 0x89504e47) {
    return [view.getUint32(16), view.getUint32(20)];
  }
  if (bytes.length < 4 || view.getUint16(0) !== 0xffd8) return null;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

function refuseHuge(name, width, height) {
  if (width * height <= MAX_PIXELS) return;
  const count = (pixels) => `${Math.round(pixels / 1e6)} megapixels`;
  throw new Error(
    `${name} is too large: it has ${width} × ${height} pixels (${count(width * height)}), and ` +
      `${count(MAX_PIXELS)} is the limit.`,
  );
}

/** Refuse what no browser decodes as a picture, but segrt does. */
function refuseDocuments(name, bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 1024));
  if (start.includes("%PDF-")) {
    throw new Error(
      `${name} is a PDF, which this page can't read: save its pages as pictures, or use segrt ` +
        "predict or segrt serve.",
    );
  }
  if (/^(II[*+]\0|MM\0[*+])/.test(start)) {
    throw new Error(`${name} is a TIFF, which browsers can't read: save it as a PNG.`);
  }
}

/**
 * Decode a picture with its EXIF orientation, and without conversion of its colours.
 *
 * @returns {Promise<ImageBitmap>}
 */
export async function decode(blob, name) {
  const head = new Uint8Array(await blob.slice(0, HEAD).arrayBuffer());
  refuseDocuments(name, head);
  const size = statedSize(head);
  if (size) refuseHuge(name, ...size); // before it is decoded
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch (cause) {
    throw new Error(`${name} is not a picture that this browser can read: choose a JPEG or PNG.`, {
      cause,
    });
  }
  refuseHuge(name, bitmap.width, bitmap.height);
  return bitmap;
}
