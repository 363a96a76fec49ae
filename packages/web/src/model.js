/* What a model needs and gives, read from the bytes of its .onnx file. */

import { SegrtError } from "./errors.js";
import { parseTransforms } from "./preprocess.js";
import { decode, fields } from "./protobuf.js";

const KEY = "segrt"; // of the metadata: see src/segrt/metadata.py
const MAX_CLASSES = 65536;
const FLOAT = 1; // TensorProto.DataType
const UINT8 = 2;
const INTEGERS = new Set([2, 3, 4, 5, 6, 7, 12, 13]);
const OUTPUTS = ["logits", "probabilities", "labels"];

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {string[]} classNames
 * @property {number[][]} palette (R, G, B) of each class
 * @property {import("./preprocess.js").Transforms} transforms
 * @property {"logits" | "probabilities" | "labels"} output
 * @property {boolean} alignCorners
 * @property {"input" | "source"} interpolateTo
 * @property {string} inputName
 * @property {string} outputName
 * @property {"float32" | "uint8"} inputType
 */

/**
 * Read a model, or refuse what can't be run exactly.
 *
 * @param {Uint8Array} bytes the .onnx file
 * @returns {Model}
 */
export function readModel(bytes) {
  let found;
  try {
    found = parts(bytes);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new SegrtError("This file is not an ONNX model, or it is damaged.", { cause });
  }
  const { metadata, graph } = found;
  if (!graph) throw new SegrtError("This file is not an ONNX model, or it is damaged.");
  if (graph.external) {
    throw new SegrtError("This model keeps its weights in another file: save it as one .onnx file.");
  }
  if (metadata === null) {
    throw new SegrtError(
      "This ONNX file has no segrt metadata, so it is not known how to prepare pictures for it: " +
        "export it with segrt-export, or build a page with segrt web.",
    );
  }
  let meta;
  try {
    meta = JSON.parse(metadata);
  } catch (cause) {
    throw new SegrtError("The segrt metadata of this model is damaged: export it again.", { cause });
  }
  return checked(meta ?? {}, graph);
}

function checked(meta, graph) {
  if (meta.bands?.length) {
    throw new SegrtError(`This model takes bands (${meta.bands.join(", ")}), and no picture.`);
  }
  const { input, channels, fixed } = imageInput(graph.inputs);
  const output = graph.outputs[0];
  const form = meta.output ?? "logits";
  if (!output || !OUTPUTS.includes(form)) {
    throw new SegrtError(`This model states the output ${form}: use ${OUTPUTS.join(", ")}.`);
  }
  if ((form === "labels") !== INTEGERS.has(output.type) || (form !== "labels" && output.type !== FLOAT)) {
    throw new SegrtError(`The output of this model is not of the type that ${form} have: export it again.`);
  }
  const count = form === "labels" ? null : output.dims.length === 4 ? output.dims[1] : null;
  const classes = count === 1 ? 2 : count;
  let names = strings(meta.class_names, "class names");
  if (!names.length) {
    names = count === 1 ? ["background", "foreground"] : numbered(classes ?? 256);
  }
  if (classes !== null && names.length !== classes) {
    throw new SegrtError(
      `This model names ${names.length} classes, but it has ${classes}: export it again.`,
    );
  }
  const palette = meta.palette?.length ? meta.palette : vocPalette(names.length);
  const isColour = (c) =>
    Array.isArray(c) && c.length === 3 && c.every((v) => Number.isInteger(v) && v >= 0 && v < 256);
  if (palette.length < names.length || !palette.every(isColour)) {
    throw new SegrtError("The palette of this model is not valid: export it again.");
  }
  const interpolateTo = meta.interpolate_to ?? "input";
  if (!["input", "source"].includes(interpolateTo)) {
    throw new SegrtError(`This model interpolates to ${interpolateTo}, which is unknown: update segrt-web.`);
  }
  const transforms = parseTransforms(meta.transforms ?? [{ type: "Normalize" }], {
    resizeIn: meta.resize_in ?? "uint8",
    channels,
    fixed,
  });
  if (input.type === UINT8 && !transforms.normalize.isPlain) {
    throw new SegrtError("This model takes pixels from 0 to 255, but its metadata normalises them.");
  }
  return {
    name: String(meta.name ?? "model"),
    classNames: names,
    palette: palette.slice(0, names.length),
    transforms,
    output: form,
    alignCorners: Boolean(meta.upsample?.align_corners),
    interpolateTo,
    inputName: input.name,
    outputName: output.name,
    inputType: input.type === UINT8 ? "uint8" : "float32",
  };
}

function imageInput(inputs) {
  const [input] = inputs;
  const dims = input?.dims ?? [];
  const fits =
    inputs.length === 1 &&
    [FLOAT, UINT8].includes(input.type) &&
    dims.length === 4 &&
    (dims[0] === null || dims[0] === 1) &&
    (dims[1] === 1 || dims[1] === 3 || (dims[1] === null && (dims[3] === null || dims[3] >= 16)));
  if (!fits) {
    throw new SegrtError(
      "This is not a segmentation model that can be run here: it must take one picture, " +
        "N x 3 x H x W or N x 1 x H x W, of float32 or uint8.",
    );
  }
  return { input, channels: dims[1] ?? 3, fixed: [dims[2], dims[3]] };
}

const numbered = (count) => Array.from({ length: count }, (_, i) => `class_${i}`);

function strings(value, what) {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > MAX_CLASSES || !value.every((v) => typeof v === "string")) {
    throw new SegrtError(`The ${what} of this model are not valid: export it again.`);
  }
  return value;
}

/** The metadata and the graph of a ModelProto. */
function parts(bytes) {
  let metadata = null;
  let graph = null;
  for (const [number, value] of fields(bytes)) {
    if (number === 7 && value instanceof Uint8Array) graph = readGraph(value);
    if (number === 14 && value instanceof Uint8Array) {
      const entry = texts(value);
      if (entry[1] === KEY) metadata = entry[2] ?? "";
    }
  }
  return { metadata, graph };
}

/** The length-delimited fields of a message as texts, by number. */
function texts(message) {
  const found = {};
  for (const [number, value] of fields(message)) {
    if (value instanceof Uint8Array) found[number] = decode(value);
  }
  return found;
}

function readGraph(message) {
  const graph = { inputs: [], outputs: [], external: false };
  const constants = new Set();
  for (const [number, value] of fields(message)) {
    if (number === 5) {
      for (const [part, content] of fields(value)) {
        if (part === 8) constants.add(decode(content));
        if (part === 14 && content === 1) graph.external = true;
      }
    } else if (number === 11) graph.inputs.push(readValueInfo(value));
    else if (number === 12) graph.outputs.push(readValueInfo(value));
  }
  graph.inputs = graph.inputs.filter((input) => !constants.has(input.name));
  return graph;
}

/** A ValueInfoProto: its name, the type of its elements, and its dimensions, null where any. */
function readValueInfo(message) {
  const info = { name: "", type: 0, dims: [] };
  for (const [number, value] of fields(message)) {
    if (number === 1) info.name = decode(value);
    if (number !== 2) continue;
    for (const [kind, tensor] of fields(value)) {
      if (kind !== 1) continue;
      for (const [part, content] of fields(tensor)) {
        if (part === 1) info.type = content;
        if (part === 2) info.dims = [...fields(content)].map(([, dim]) => readDim(dim));
      }
    }
  }
  return info;
}

function readDim(message) {
  for (const [number, value] of fields(message)) {
    if (number === 1 && value > 0 && value < 2 ** 31) return value;
  }
  return null;
}

/** The PASCAL VOC colour map without its first entry, as `segrt.palette.voc_palette`. */
export function vocPalette(size) {
  return Array.from({ length: size }, (_, i) => {
    const colour = [0, 0, 0];
    for (let bit = 0; bit < 8; bit++) {
      for (let channel = 0; channel < 3; channel++) {
        colour[channel] |= (((i + 1) >> (3 * bit + channel)) & 1) << (7 - bit);
      }
    }
    return colour;
  });
}
