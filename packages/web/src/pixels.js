/* RGB pixels of what `Segmenter.segment` takes. */

import { SegrtError } from "./errors.js";

/** Limit on the pixels of a picture, as in the Python package. */
const MAX_PIXELS = 178_956_970;

const STRIP = 1 << 22; // pixels; some browsers limit a canvas to 2 ** 24

/**
 * @param {ImageBitmap | ImageData | {data: Uint8Array | Uint8ClampedArray, width: number, height: number}} image
 *   with 3 or 4 values per pixel; alpha is dropped
 * @returns {{data: Uint8Array, width: number, height: number, channels: 3}}
 */
export function rgb(image) {
  const { width, height } = image ?? {};
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw new SegrtError("This is not a picture: give an ImageBitmap, ImageData or {data, width, height}.");
  }
  if (width * height > MAX_PIXELS) {
    throw new SegrtError(`The picture of ${width} × ${height} pixels is too large: scale it down.`);
  }
  const data = new Uint8Array(3 * width * height);
  if (globalThis.ImageBitmap && image instanceof ImageBitmap) {
    const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
    const pen = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      pen.clearRect(0, 0, width, rows);
      pen.drawImage(image, 0, -top);
      dropAlpha(pen.getImageData(0, 0, width, count).data, data, 3 * top * width);
    }
    image.close();
  } else if (!ArrayBuffer.isView(image.data) || image.data.BYTES_PER_ELEMENT !== 1) {
    throw new SegrtError("The data of a picture must be a Uint8Array or Uint8ClampedArray.");
  } else if (image.data.length === 4 * width * height) {
    dropAlpha(image.data, data, 0);
  } else if (image.data.length === 3 * width * height) {
    data.set(image.data);
  } else {
    throw new SegrtError(
      `The picture of ${width} × ${height} pixels has ${image.data.length} values: it needs 3 or 4 ` +
        "for each pixel.",
    );
  }
  return { data, width, height, channels: 3 };
}

function dropAlpha(rgba, out, at) {
  for (let i = 0; i < rgba.length; i += 4) {
    out[at++] = rgba[i];
    out[at++] = rgba[i + 1];
    out[at++] = rgba[i + 2];
  }
}
