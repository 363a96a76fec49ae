/*
 * From pixels to the input of the network, with the arithmetic of src/segrt/preprocess.py.
 *
 * An image is {data, width, height, channels}: interleaved, R, G, B or grey; data is a Uint8Array,
 * or a Float32Array once values are not whole numbers any more. Sizes are [height, width].
 */

import { SegrtError } from "./errors.js";
import { centred, linear, nearest } from "./resize.js";

const MAX_SIDE = 65536;
const RESIZERS = { NEAREST: nearest, LINEAR: linear, PILLOW_NEAREST: centred };

/** Python's round: halves go to the even neighbour. */
function round(x) {
  const below = Math.floor(x);
  const rest = x - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

const scaled = ([h, w], scale) => [Math.max(round(h * scale), 1), Math.max(round(w * scale), 1)];
const multiple = ([h, w], step) => [Math.ceil(h / step) * step, Math.ceil(w / step) * step];

function limited(size, side, least, most) {
  const target = most && side > most ? most : least && side < least ? least : side;
  return target === side ? size : scaled(size, target / side);
}

function byShort(size, { short_size, max_size = 1e10, rounding = "nearest" }) {
  const [short, long] = [Math.min(...size), Math.max(...size)];
  let target = short_size;
  if (rounding === "down") {
    let longer = Math.trunc((target * long) / short);
    if (longer > max_size) {
      target = Math.trunc((Math.trunc(max_size) * target) / longer);
      longer = Math.trunc(max_size);
    }
    const sides = [Math.max(target, 1), Math.max(longer, 1)];
    return size[0] <= size[1] ? sides : sides.reverse();
  }
  if ((target / short) * long > max_size) {
    target = Math.max(Math.trunc((max_size / long) * short), 1);
  }
  return scaled(size, target / short);
}

/** The size after each transform, by type; `s` are its settings. */
const SIZES = {
  Resize(size, { target_size, keep_ratio, size_divisor }) {
    if (target_size === -1) return size;
    let target = target_size;
    if (keep_ratio) {
      const scale = Math.min(
        Math.max(...target) / Math.max(...size),
        Math.min(...target) / Math.min(...size),
      );
      target = scaled(size, scale);
    }
    return multiple(target, size_divisor || 1);
  },
  ResizeByLong: (size, s) => scaled(size, s.long_size / Math.max(...size)),
  ResizeByShort: byShort,
  LimitLong: (size, s) => limited(size, Math.max(...size), s.min_long, s.max_long),
  LimitShort: (size, s) => limited(size, Math.min(...size), s.min_short, s.max_short),
  ResizeRangeScaling: (size, s) => scaled(size, s.max_value / Math.max(...size)),
  ResizeToMultiple: (size, s) => multiple(size, s.size_divisor),
  Padding(size, { target_size }) {
    if (size[0] > target_size[0] || size[1] > target_size[1]) {
      throw new SegrtError(
        `The picture of ${size[1]} × ${size[0]} pixels is larger than the ${target_size[1]} × ` +
          `${target_size[0]} that the model pads to: choose another inference size.`,
      );
    }
    return target_size;
  },
  PaddingByAspectRatio([height, width], { aspect_ratio }) {
    const ratio = width / height;
    if (ratio > aspect_ratio) return [Math.max(Math.trunc(width / aspect_ratio), height), width];
    if (ratio < aspect_ratio) return [height, Math.max(Math.trunc(height * aspect_ratio), width)];
    return [height, width];
  },
};

/** Settings that each transform has, with their defaults; undefined where there is none. */
const RESIZING = { interp: "LINEAR" };
const PADDING = { im_padding_value: [127.5, 127.5, 127.5], label_padding_value: 255 };
const SETTINGS = {
  Resize: { ...RESIZING, target_size: -1, keep_ratio: true, size_divisor: 32 },
  ResizeByLong: { ...RESIZING, long_size: undefined },
  ResizeByShort: { ...RESIZING, short_size: undefined, max_size: 1e10, rounding: "nearest" },
  LimitLong: { ...RESIZING, max_long: null, min_long: null },
  LimitShort: { ...RESIZING, max_short: null, min_short: null },
  ResizeRangeScaling: { ...RESIZING, min_value: 400, max_value: 600 },
  ResizeToMultiple: { ...RESIZING, size_divisor: 32 },
  Padding: { ...PADDING, target_size: undefined },
  PaddingByAspectRatio: { ...PADDING, aspect_ratio: 1 },
};

export const isPadding = (step) => step.type.startsWith("Padding");

class Normalize {
  constructor({ scale = 1 / 255, mean = 0.5, std = 0.5, to_rgb: toRgb = true, ...rest } = {}) {
    this.scale = scale;
    this.mean = three(mean);
    this.std = three(std);
    this.toRgb = toRgb;
    const numbers = [scale, ...this.mean, ...this.std];
    const valid = numbers.every(Number.isFinite) && scale !== 0 && !this.std.includes(0);
    if (!valid || typeof toRgb !== "boolean" || Object.keys(rest).length) {
      throw new SegrtError("The model's transform Normalize is not valid: export the model again.");
    }
  }

  get isPlain() {
    const { scale, mean, std } = this;
    return scale === 1 && mean.every((v) => v === 0) && std.every((v) => v === 1);
  }

  /** Normalise an image into planes of the network's channel order. */
  write(image) {
    const { data, channels } = image;
    const pixels = image.width * image.height;
    const out = new Float32Array(pixels * channels);
    for (let channel = 0; channel < channels; channel++) {
      const from = this.toRgb || channels === 1 ? channel : channels - 1 - channel;
      const plane = out.subarray(channel * pixels, (channel + 1) * pixels);
      const [mean, std] = [this.mean[channel], this.std[channel]];
      if (data instanceof Float32Array) {
        const f = Math.fround; // as NumPy, in float32
        const [s, m, d] = [f(this.scale), f(mean), f(std)];
        for (let i = 0, at = from; i < pixels; i++, at += channels) {
          plane[i] = f(f(data[at] * s) - m) / d;
        }
      } else {
        const table = new Float32Array(256);
        for (let v = 0; v < 256; v++) table[v] = (v * this.scale - mean) / std;
        for (let i = 0, at = from; i < pixels; i++, at += channels) plane[i] = table[data[at]];
      }
    }
    return out;
  }
}

function three(value) {
  const list = Array.isArray(value) ? value : [value];
  return list.length === 1 ? [list[0], list[0], list[0]] : list.length === 3 ? list : [NaN];
}

/**
 * @typedef {object} Layout how an image gets to its inference size
 * @property {number[]} source [height, width] of the image
 * @property {[object, number[]][]} steps each step that changes the size, with the size after it
 * @property {number[]} size the inference size
 * @property {boolean} isPlain whether the image is resized at most once, and not padded
 */

function makeLayout(source, steps) {
  return {
    source,
    steps,
    size: steps.length ? steps.at(-1)[1] : source,
    isPlain: steps.length <= 1 && steps.every(([step]) => !isPadding(step)),
  };
}

/** The preprocessing of a model; made by `parseTransforms`. */
export class Transforms {
  constructor(normalize, steps, { resizeIn, channels, fixed }) {
    this.normalize = normalize;
    this.steps = steps;
    this.resizeIn = steps.length ? resizeIn : "uint8";
    this.channels = channels;
    this.fixed = fixed;
  }

  /**
   * How an image of a size gets to its inference size.
   *
   * @param {number[]} source [height, width]
   * @param {null | number | number[]} targetSize null: the model's own; -1: the source size; N: fit
   *   inside N x N; [height, width]: exactly that
   * @returns {Layout}
   */
  layout(source, targetSize = null) {
    let steps = this.steps;
    if (Array.isArray(targetSize)) steps = [this.#exactly(targetSize)];
    else if (targetSize !== null) {
      const rule = steps.find((step) => step.type === "Resize") ?? this.#resize({});
      const target = targetSize === -1 ? -1 : [targetSize, targetSize];
      steps = [{ ...rule, target_size: target }];
    }
    const [height, width] = this.fixed;
    const own = () => targetSize === null && this.#endsAtFixed(source);
    if ((height || width) && !own()) steps = [this.#exactly([height ?? source[0], width ?? source[1]])];
    const done = [];
    let size = source;
    for (const step of steps) {
      const after = SIZES[step.type](size, step);
      if (after[0] !== size[0] || after[1] !== size[1]) done.push([step, after]);
      size = after;
    }
    return makeLayout(source, done);
  }

  #resize(settings) {
    const own = this.steps.find((step) => !isPadding(step));
    return { type: "Resize", ...SETTINGS.Resize, interp: own?.interp ?? "LINEAR", ...settings };
  }

  #exactly(size) {
    return this.#resize({ keep_ratio: false, size_divisor: null, target_size: size });
  }

  #endsAtFixed(size) {
    try {
      for (const step of this.steps) size = SIZES[step.type](size, step);
    } catch (error) {
      if (error instanceof SegrtError) return false;
      throw error;
    }
    return this.fixed.every((want, axis) => want === null || want === size[axis]);
  }

  /** Resize, pad and normalise an RGB image: float32, channels x height x width. */
  apply(image, layout) {
    let fitted = this.channels === 1 ? grey(image) : image;
    if (this.resizeIn === "float32" && layout.steps.length) {
      fitted = { ...fitted, data: Float32Array.from(fitted.data) };
    }
    for (const [step, size] of layout.steps) {
      fitted = isPadding(step) ? pad(fitted, size, step.im_padding_value) : RESIZERS[step.interp](fitted, size);
    }
    return this.normalize.write(fitted);
  }
}

/** OpenCV's conversion to grey, in fixed point. */
function grey({ data, width, height }) {
  const out = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < out.length; i++, at += 3) {
    out[i] = (9798 * data[at] + 19235 * data[at + 1] + 3735 * data[at + 2] + 16384) >> 15;
  }
  return { data: out, width, height, channels: 1 };
}

/** Pad at the right and at the bottom. OpenCV fills a grey image with the value of B. */
function pad(image, [height, width], rgb) {
  const { channels } = image;
  const value = channels === 1 ? [rgb[2]] : rgb;
  const whole = rgb.every((v) => Number.isInteger(v) && v >= 0 && v <= 255);
  const Kind = whole && image.data instanceof Uint8Array ? Uint8Array : Float32Array;
  const data = new Kind(height * width * channels);
  for (let y = 0, at = 0; y < height; y++) {
    const inside = y < image.height ? image.width * channels : 0;
    data.set(image.data.subarray(y * image.width * channels, y * image.width * channels + inside), at);
    for (let x = inside; x < width * channels; x++) data[at + x] = value[x % channels];
    at += width * channels;
  }
  return { data, width, height, channels };
}

const isSide = (value) => Number.isInteger(value) && value >= 1 && value <= MAX_SIDE;

/**
 * Parse the transforms in the metadata of a model; see `segrt.preprocess.Transforms.parse`.
 *
 * @param {object[]} list
 * @param {{resizeIn: string, channels: number, fixed: (number | null)[]}} input
 * @returns {Transforms}
 */
export function parseTransforms(list, input) {
  if (!Array.isArray(list) || !["uint8", "float32"].includes(input.resizeIn)) {
    throw new SegrtError("The transforms of this model are not valid: export it again.");
  }
  let normalize = null;
  const steps = [];
  for (const { type, ...settings } of list) {
    if (type === "Normalize") {
      if (normalize) throw new SegrtError("The model lists the transform Normalize twice.");
      normalize = new Normalize(settings);
      continue;
    }
    if (!Object.hasOwn(SETTINGS, type)) {
      const known = ["Normalize", ...Object.keys(SETTINGS)].join(", ");
      throw new SegrtError(`The model requires the transform ${type}: segrt-web has ${known}.`);
    }
    steps.push(parseStep(type, settings, normalize, input));
  }
  const identity = new Normalize({ scale: 1, mean: 0, std: 1 });
  return new Transforms(normalize ?? identity, steps, input);
}

function parseStep(type, settings, normalize, input) {
  const step = { type, ...SETTINGS[type], ...settings };
  const invalid = new SegrtError(`The model's transform ${type} is not valid: export the model again.`);
  const unknown = Object.keys(settings).filter((name) => !Object.hasOwn(SETTINGS[type], name));
  if (unknown.length || Object.values(step).includes(undefined)) throw invalid;
  if ("interp" in step) {
    step.interp = String(step.interp).toUpperCase();
    if (!Object.hasOwn(RESIZERS, step.interp)) {
      throw new SegrtError(
        `The model resizes pictures by ${step.interp}, which segrt-web can't do exactly: it has ` +
          `${Object.keys(RESIZERS).join(", ")}.`,
      );
    }
  }
  if ("target_size" in step) {
    const target = step.target_size; // [width, height] in the file
    if (Array.isArray(target) && target.length === 2) step.target_size = [target[1], target[0]];
    else if (type === "Resize" && isSide(target)) step.target_size = [target, target];
    if (step.target_size !== -1 && !(Array.isArray(step.target_size) && step.target_size.every(isSide))) {
      throw invalid;
    }
    if (type === "Padding" && step.target_size === -1) throw invalid;
  }
  for (const name of ["long_size", "short_size", "max_long", "min_long", "max_short", "min_short"]) {
    if (name in step && step[name] !== null && !isSide(step[name])) throw invalid;
  }
  if (type === "ResizeToMultiple" && !isSide(step.size_divisor)) throw invalid;
  if (type === "Resize" && step.size_divisor && !isSide(step.size_divisor)) throw invalid;
  if (type === "ResizeRangeScaling" && !(step.min_value === step.max_value && isSide(step.max_value))) {
    throw invalid;
  }
  if (isPadding(step)) {
    step.im_padding_value = three(step.im_padding_value);
    if (!step.im_padding_value.every(Number.isFinite)) throw invalid;
    if (normalize) {
      const { scale, mean, std } = normalize;
      step.im_padding_value = step.im_padding_value.map((v, i) => (v * std[i] + mean[i]) / scale);
    }
  }
  return step;
}
