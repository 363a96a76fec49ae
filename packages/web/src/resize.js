/* Resizing with the arithmetic of OpenCV; images as in preprocess.js. */

const BITS = 11; // of OpenCV's fixed-point weights
const ONE = 1 << BITS;

/** Index in `full` pixels of each of `pixels` samples, computed as cv2.INTER_NEAREST does. */
export function nearestPixels(full, pixels) {
  const step = 1 / (pixels / full);
  return Int32Array.from({ length: pixels }, (_, i) => Math.min(Math.trunc(i * step), full - 1));
}

/** cv2.resize with INTER_NEAREST. */
export function nearest(image, [height, width]) {
  const { data, channels } = image;
  const rows = nearestPixels(image.height, height);
  const columns = nearestPixels(image.width, width);
  const out = new data.constructor(height * width * channels);
  for (let y = 0, at = 0; y < height; y++) {
    const row = rows[y] * image.width;
    for (let x = 0; x < width; x++) {
      const from = (row + columns[x]) * channels;
      for (let c = 0; c < channels; c++) out[at++] = data[from + c];
    }
  }
  return { data: out, width, height, channels };
}

/**
 * Positions of an axis: index of the pixel before and after each sample, and weight of the latter.
 * Beyond the edge OpenCV drops the weight of columns, but not that of rows.
 */
function axis(full, pixels, isRows) {
  const scale = 1 / (pixels / full);
  const before = new Int32Array(pixels);
  const after = new Int32Array(pixels);
  const weight = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    let position = Math.fround((i + 0.5) * scale - 0.5);
    const first = Math.floor(position);
    position = Math.fround(position - first);
    const inside = first >= 0 && first < full - 1;
    before[i] = Math.min(Math.max(first, 0), full - 1);
    after[i] = Math.min(first + 1, full - 1);
    weight[i] = inside || isRows ? position : 0;
  }
  return { before, after, weight };
}

/** Half to even, as OpenCV converts weights. */
function even(x) {
  const below = Math.floor(x);
  const rest = x - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** cv2.resize with INTER_LINEAR: fixed point for uint8, which rounds; float32 otherwise. */
export function linear(image, [height, width]) {
  const { data, channels } = image;
  if (image.height === 2 * height && image.width === 2 * width) return halved(image);
  const rows = axis(image.height, height, true);
  const columns = axis(image.width, width, false);
  const whole = data instanceof Uint8Array;
  const f = Math.fround;
  const n = width * channels;
  const out = new data.constructor(height * n);
  const left = new Float32Array(width);
  const right = new Float32Array(width);
  for (let x = 0; x < width; x++) {
    const w = columns.weight[x];
    right[x] = whole ? even(w * ONE) : w;
    left[x] = whole ? even(f(1 - w) * ONE) : f(1 - w);
  }
  const line = (y, into) => {
    const row = y * image.width * channels;
    for (let x = 0, at = 0; x < width; x++) {
      const a = row + columns.before[x] * channels;
      const b = row + columns.after[x] * channels;
      for (let c = 0; c < channels; c++, at++) {
        into[at] = whole
          ? data[a + c] * left[x] + data[b + c] * right[x]
          : f(data[a + c] * left[x]) + f(data[b + c] * right[x]);
      }
    }
    return into;
  };
  const Kind = whole ? Int32Array : Float32Array;
  let [upper, lower] = [new Kind(n), new Kind(n)];
  let [upperRow, lowerRow] = [-1, -1];
  for (let y = 0, at = 0; y < height; y++) {
    const [a, b] = [rows.before[y], rows.after[y]];
    if (a === lowerRow) {
      [upper, lower] = [lower, upper];
      [upperRow, lowerRow] = [lowerRow, upperRow];
    }
    if (a !== upperRow) line((upperRow = a), upper);
    if (b !== lowerRow) line((lowerRow = b), lower);
    const w = rows.weight[y];
    if (whole) {
      const [top, bottom] = [even(f(1 - w) * ONE), even(w * ONE)];
      for (let i = 0; i < n; i++) {
        out[at++] = (((top * (upper[i] >> 4)) >> 16) + ((bottom * (lower[i] >> 4)) >> 16) + 2) >> 2;
      }
    } else {
      const top = f(1 - w);
      for (let i = 0; i < n; i++) out[at++] = f(upper[i] * top) + f(lower[i] * w);
    }
  }
  return { data: out, width, height, channels };
}

/** Half the size in both directions: OpenCV then averages, whatever the interpolation. */
function halved(image) {
  const { data, channels } = image;
  const [height, width] = [image.height / 2, image.width / 2];
  const out = new data.constructor(height * width * channels);
  const stride = image.width * channels;
  const whole = data instanceof Uint8Array;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++, at++) {
        const from = 2 * y * stride + 2 * x * channels + c;
        const sum = data[from] + data[from + channels] + data[from + stride] + data[from + stride + channels];
        out[at] = whole ? (sum + 2) >> 2 : sum / 4;
      }
    }
  }
  return { data: out, width, height, channels };
}

/** Image.resize of Pillow with NEAREST, which samples the centres of pixels. */
export function centred(image, [height, width]) {
  const { data, channels } = image;
  const out = new data.constructor(height * width * channels);
  const rows = centres(image.height, height);
  const columns = centres(image.width, width);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (rows[y] * image.width + columns[x]) * channels;
      for (let c = 0; c < channels; c++) out[at++] = data[from + c];
    }
  }
  return { data: out, width, height, channels };
}

/** Summed up as in Pillow, whose sums are inexact. */
function centres(full, pixels) {
  const step = full / pixels;
  let position = step * 0.5;
  return Int32Array.from({ length: pixels }, () => {
    const found = Math.min(Math.trunc(position), full - 1);
    position += step;
    return found;
  });
}
