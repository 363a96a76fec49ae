/*
 * From the network's output to a label map of the source size, with the arithmetic of
 * src/segrt/postprocess.py: bilinear upsampling, argmax and nearest neighbour in one step, where
 * only classes that may win are interpolated, in float32.
 */

import { SegrtError } from "./errors.js";
import { isPadding } from "./preprocess.js";
import { nearestPixels } from "./resize.js";

const SAFE = 3.4028234663852886e38 / 4; // differences between such logits don't overflow
const f = Math.fround;

/**
 * @param {{data: ArrayLike<number>, dims: number[]}} output of one image
 * @param {import("./model.js").Model} model
 * @param {import("./preprocess.js").Layout} layout
 * @returns {Uint16Array} class ids of the source image, row by row
 */
export function finish(output, model, layout) {
  if (model.output === "labels") {
    const map = integerLabels(output, model.classNames.length);
    const fitted = resizeLabels(map, layout.size);
    return toSource(fitted, layout);
  }
  const logits = standard(output, model);
  const direct = model.interpolateTo === "source" && !layout.steps.some(([step]) => isPadding(step));
  const size = direct ? layout.source : layout.size;
  const wanted = layout.isPlain ? layout.source : size;
  const labels = labelsFromLogits(logits, size, wanted, model.alignCorners);
  return direct || layout.isPlain ? labels.data : toSource(labels, layout);
}

/** Logits {data, classes, height, width} with a channel for each class. */
function standard({ data, dims }, model) {
  if (dims.length === 3) dims = [dims[0], 1, dims[1], dims[2]];
  const [batch, classes, height, width] = dims;
  const named = model.classNames.length;
  const count = classes === 1 ? 2 : classes;
  if (dims.length !== 4 || batch !== 1 || count !== named || !height || !width) {
    throw new SegrtError(
      `The network gave ${dims.join(" x ")} where 1 x ${named} x h x w is needed: is this a ` +
        "segmentation model?",
    );
  }
  if (classes > 1) return { data, classes, height, width };
  const both = new Float32Array(2 * data.length);
  both.set(data, data.length);
  if (model.output === "probabilities") {
    for (let i = 0; i < data.length; i++) both[i] = 1 - data[i];
  }
  return { data: both, classes: 2, height, width };
}

/** Label map {data, height, width} of a network that ends in labels. */
function integerLabels({ data, dims }, classes) {
  const sides = dims.slice(1).filter((side, axis) => dims.length < 4 || axis > 0);
  if (dims[0] !== 1 || (dims.length === 4 && dims[1] !== 1) || sides.length !== 2) {
    throw new SegrtError(
      `The network gave ${dims.join(" x ")} where labels 1 x H x W are needed: is this a ` +
        "segmentation model?",
    );
  }
  const labels = Uint16Array.from(data, Number);
  for (let i = 0; i < labels.length; i++) {
    if (Number(data[i]) !== labels[i] || labels[i] >= classes) {
      throw new SegrtError(`The network gave the label ${data[i]}, but has ${classes} classes.`);
    }
  }
  return { data: labels, height: sides[0], width: sides[1] };
}

/** Nearest neighbour; the map itself if it has that size already. */
function resizeLabels(map, [height, width]) {
  if (map.height === height && map.width === width) return map;
  return sampled(map, nearestPixels(map.height, height), nearestPixels(map.width, width));
}

function sampled(map, rows, columns) {
  const data = new Uint16Array(rows.length * columns.length);
  for (let y = 0, at = 0; y < rows.length; y++) {
    const row = rows[y] * map.width;
    for (let x = 0; x < columns.length; x++) data[at++] = map.data[row + columns[x]];
  }
  return { data, height: rows.length, width: columns.length };
}

/** Undo each step, the last one first: padding is cropped off, a resize by nearest neighbour. */
function toSource(map, layout) {
  if (layout.isPlain) return resizeLabels(map, layout.source).data;
  const [rows, columns] = [0, 1].map((axis) => {
    let index = Int32Array.from({ length: layout.source[axis] }, (_, i) => i);
    let before = layout.source[axis];
    for (const [step, size] of layout.steps) {
      if (!isPadding(step)) {
        const nearest = nearestPixels(size[axis], before);
        index = index.map((i) => nearest[i]);
      }
      before = size[axis];
    }
    return index;
  });
  return sampled(map, rows, columns).data;
}

/**
 * One axis: the cells between two neighbouring logits, and each pixel's position in its cell.
 *
 * @returns {{low: number[], high: number[], start: number[], weight: Float32Array}} indices of the
 *   logits before and after each cell; its first pixel, then the number of pixels; each pixel's
 *   weight of the logit after it
 */
function axisOf(low, full, pixels, alignCorners) {
  const samples = nearestPixels(full, pixels);
  const axis = { low: [], high: [], start: [], weight: new Float32Array(pixels) };
  const clamp = (i) => Math.min(Math.max(i, 0), low - 1);
  let last = -2;
  for (let i = 0; i < pixels; i++) {
    const top = alignCorners ? samples[i] * (low - 1) : (2 * samples[i] + 1) * low - full;
    const bottom = alignCorners ? Math.max(full - 1, 1) : 2 * full;
    // In integers, so that rounding can't move a pixel to a neighbouring cell.
    const rest = ((top % bottom) + bottom) % bottom;
    const cell = (top - rest) / bottom;
    axis.weight[i] = rest / bottom;
    if (cell === last) continue;
    last = cell;
    axis.low.push(clamp(cell));
    axis.high.push(clamp(cell + 1));
    axis.start.push(i);
  }
  axis.start.push(pixels);
  return axis;
}

/**
 * Label every source pixel: bilinear upsampling to `size`, argmax, nearest neighbour to `source`.
 * Ties go to the lowest class id and a NaN counts as the largest value.
 */
export function labelsFromLogits(logits, size, source, alignCorners) {
  // A source larger than the inference size repeats pixels: compute each once.
  const rows = axisOf(logits.height, size[0], Math.min(size[0], source[0]), alignCorners);
  const columns = axisOf(logits.width, size[1], Math.min(size[1], source[1]), alignCorners);
  let safe = true;
  for (let i = 0; i < logits.data.length && safe; i++) safe = Math.abs(logits.data[i]) <= SAFE;
  const labels = (safe ? byCells : byPixels)(byPosition(logits), rows, columns);
  return resizeLabels(labels, source);
}

/** Logits with the classes of a position next to each other. */
function byPosition({ data, classes, height, width }) {
  const turned = new Float32Array(data.length);
  const n = height * width;
  for (let k = 0; k < classes; k++) {
    for (let i = 0, at = k * n; i < n; i++, at++) turned[i * classes + k] = data[at];
  }
  return { data: turned, classes, height, width };
}

function winners({ data, classes, height, width }) {
  const best = new Uint16Array(height * width);
  for (let i = 0, at = 0; i < best.length; i++, at += classes) {
    let k = 0;
    for (let j = 1; j < classes; j++) if (data[at + j] > data[at + k]) k = j;
    best[i] = k;
  }
  return best;
}

/** Labels from finite logits, interpolated only where corners of a cell have different winners. */
function byCells(logits, rows, columns) {
  const { data, classes, width } = logits;
  const [height, wide] = [rows.weight.length, columns.weight.length];
  const labels = new Uint16Array(height * wide);
  const winner = winners(logits);
  const candidates = new Int32Array(classes);
  for (let i = 0; i < rows.low.length; i++) {
    const [top, bottom] = [rows.start[i], rows.start[i + 1]];
    for (let j = 0; j < columns.low.length; j++) {
      const [left, right] = [columns.start[j], columns.start[j + 1]];
      const ul = rows.low[i] * width + columns.low[j];
      const ur = rows.low[i] * width + columns.high[j];
      const ll = rows.high[i] * width + columns.low[j];
      const lr = rows.high[i] * width + columns.high[j];
      const one = winner[ul];
      let other = winner[ur];
      if (other === one) other = winner[ll];
      if (other === one) other = winner[lr];
      if (other === one) {
        for (let y = top; y < bottom; y++) labels.fill(one, y * wide + left, y * wide + right);
        continue;
      }
      const [a, b, c, d] = [ul * classes, ur * classes, ll * classes, lr * classes];
      // Classes that neither winner beats at all four corners.
      let count = 0;
      for (let k = 0; k < classes; k++) {
        const [ak, bk, ck, dk] = [data[a + k], data[b + k], data[c + k], data[d + k]];
        const first =
          ak >= data[a + one] || bk >= data[b + one] || ck >= data[c + one] || dk >= data[d + one];
        const second =
          ak >= data[a + other] ||
          bk >= data[b + other] ||
          ck >= data[c + other] ||
          dk >= data[d + other];
        if (first && second) candidates[count++] = k;
      }
      for (let y = top; y < bottom; y++) {
        const down = rows.weight[y];
        for (let x = left; x < right; x++) {
          const along = columns.weight[x];
          const w0 = f((1 - down) * (1 - along));
          const w1 = f((1 - down) * along);
          const w2 = f(down * (1 - along));
          const w3 = f(down * along);
          let best = 0;
          let bestValue = -Infinity;
          for (let n = 0; n < count; n++) {
            const k = candidates[n];
            const value = f(
              f(f(f(w0 * data[a + k]) + f(w1 * data[b + k])) + f(w2 * data[c + k])) +
                f(w3 * data[d + k]),
            );
            if (value > bestValue) [best, bestValue] = [k, value];
          }
          labels[y * wide + x] = best;
        }
      }
    }
  }
  return { data: labels, height, width: wide };
}

/** (1 - weight) * a + weight * b; weight 0 has no effect, even on NaN. */
const mix = (a, b, weight) => (weight === 0 ? a : f(f(f(1 - weight) * a) + f(weight * b)));

/** Labels from any logits: every class at every pixel. */
function byPixels({ data, classes, width }, rows, columns) {
  const [height, wide] = [rows.weight.length, columns.weight.length];
  const labels = new Uint16Array(height * wide);
  for (let i = 0; i < rows.low.length; i++) {
    for (let y = rows.start[i]; y < rows.start[i + 1]; y++) {
      for (let j = 0; j < columns.low.length; j++) {
        const [l, r] = [columns.low[j] * classes, columns.high[j] * classes];
        const upper = rows.low[i] * width * classes;
        const lower = rows.high[i] * width * classes;
        for (let x = columns.start[j]; x < columns.start[j + 1]; x++) {
          const along = columns.weight[x];
          let best = 0;
          let bestValue = NaN;
          for (let k = 0; k < classes; k++) {
            const value = mix(
              mix(data[upper + l + k], data[upper + r + k], along),
              mix(data[lower + l + k], data[lower + r + k], along),
              rows.weight[y],
            );
            if (k === 0) bestValue = value;
            if (Number.isNaN(bestValue)) break;
            if (value > bestValue || Number.isNaN(value)) [best, bestValue] = [k, value];
          }
          labels[y * wide + x] = best;
        }
      }
    }
  }
  return { data: labels, height, width: wide };
}
