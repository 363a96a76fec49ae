/* Tests without Python: node --test packages/web/test/. Those against Python are in tests/web. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Segmenter, SegrtError } from "../src/index.js";
import { vocPalette } from "../src/model.js";
import { labelsFromLogits } from "../src/postprocess.js";
import { parseTransforms } from "../src/preprocess.js";

const INPUT = { resizeIn: "uint8", channels: 3, fixed: [null, null] };
const text = (value) => new TextEncoder().encode(value);

/** A field of a message: bytes, text or a small number. */
function field(number, value) {
  if (typeof value === "number") return Uint8Array.from([number << 3, value]);
  const bytes = typeof value === "string" ? text(value) : value;
  const length = [];
  for (let n = bytes.length; ; n >>>= 7) {
    length.push(n > 127 ? (n & 127) | 128 : n);
    if (n <= 127) break;
  }
  return Uint8Array.from([(number << 3) | 2, ...length, ...bytes]);
}

const message = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

const tensor = (name, type, dims) =>
  message(
    field(1, name),
    field(2, field(1, message(field(1, type), field(2, message(...dims.map((d) =>
      field(1, typeof d === "number" ? field(1, d) : field(2, d)),
    )))))),
  );

/** The bytes of a model without nodes, which is enough to be described. */
function model({ meta = {}, input = ["N", 3, "H", "W"], type = 1, initializer } = {}) {
  const graph = message(
    ...(initializer ? [field(5, initializer)] : []),
    field(11, tensor("x", type, input)),
    field(12, tensor("y", 1, ["N", 2, "h", "w"])),
  );
  const entry = message(field(1, "segrt"), field(2, typeof meta === "string" ? meta : JSON.stringify(meta)));
  return message(field(7, graph), ...(meta === null ? [] : [field(14, entry)]));
}

/** A runtime whose network gives `logits` for any picture. */
const runtime = (data, dims) => ({
  Tensor: class {
    constructor(type, values, shape) {
      Object.assign(this, { type, values, shape });
    }
  },
  InferenceSession: { create: async () => ({ run: async () => ({ y: { data, dims } }) }) },
});

const load = (options, ort = runtime(new Float32Array(2), [1, 2, 1, 1])) =>
  Segmenter.load(model(options), { ort });

test("a model is described by its metadata", async () => {
  const seg = await load({ meta: { name: "roads", class_names: ["road", "rest"] } });
  assert.deepEqual([seg.name, seg.classNames, seg.resizes], ["roads", ["road", "rest"], false]);
  assert.deepEqual(seg.palette, [[128, 0, 0], [0, 128, 0]]);
});

const refused = {
  "has no segrt metadata": { meta: null },
  "metadata of this model is damaged": { meta: "{" },
  "must take one picture": { input: ["N", 7, "H", "W"] },
  "takes bands \\(nir, red, green\\), and no picture": { meta: { bands: ["nir", "red", "green"] } },
  "names 3 classes, but it has 2": { meta: { class_names: ["a", "b", "c"] } },
  "resizes pictures by AREA": { meta: { transforms: [{ type: "ResizeByLong", long_size: 9, interp: "AREA" }] } },
  "requires the transform Crop": { meta: { transforms: [{ type: "Crop" }] } },
  "transform Resize is not valid": { meta: { transforms: [{ type: "Resize", target_size: 0 }] } },
  "Normalize twice": { meta: { transforms: [{ type: "Normalize" }, { type: "Normalize" }] } },
  "weights in another file": { initializer: message(field(8, "w"), field(14, 1)) },
  "but its metadata normalises them": { type: 2 },
};
for (const [words, options] of Object.entries(refused)) {
  test(`a model is refused: ${words}`, async () => {
    await assert.rejects(load(options), (error) => {
      assert.ok(error instanceof SegrtError);
      assert.match(error.message, new RegExp(words));
      assert.equal(error.message.split("\n").length, 1);
      return true;
    });
  });
}

test("what is no ONNX model, or cut off anywhere, is refused", async () => {
  const whole = model();
  for (let length = 0; length < whole.length; length++) {
    await assert.rejects(Segmenter.load(whole.slice(0, length), { ort: {} }), SegrtError);
  }
  await assert.rejects(Segmenter.load(text("not a model"), { ort: {} }), /not an ONNX model/);
});

test("pictures are RGB or RGBA; others are refused", async () => {
  const seg = await load({}, runtime(Float32Array.of(0, 1, 1, 0), [1, 2, 1, 2]));
  for (const channels of [3, 4]) {
    const data = new Uint8Array(channels * 8);
    const { labels, counts, inferenceSize } = await seg.segment({ data, width: 4, height: 2 });
    assert.deepEqual([...labels], [1, 1, 0, 0, 1, 1, 0, 0]);
    assert.deepEqual([[...counts], inferenceSize], [[4, 4], [2, 4]]);
  }
  const data = new Uint8Array(5);
  await assert.rejects(seg.segment({ data, width: 4, height: 2 }), /has 5 values/);
  await assert.rejects(seg.segment({ data, width: 0, height: 2 }), /not a picture/);
  await assert.rejects(seg.segment({ data, width: 4, height: 2 }, { targetSize: 0 }), /targetSize 0/);
  await seg.close();
  await assert.rejects(seg.segment({ data, width: 1, height: 1 }), /closed/);
});

test("sizes are rounded as in Python: halves to even", () => {
  const size = (transform, source) => parseTransforms([transform], INPUT).layout(source).size;
  assert.deepEqual(size({ type: "ResizeByLong", long_size: 5 }, [10, 5]), [5, 2]);
  assert.deepEqual(size({ type: "Resize", target_size: 512 }, [1080, 1920]), [288, 512]);
  assert.deepEqual(size({ type: "Resize", target_size: [64, 32], keep_ratio: false }, [9, 9]), [32, 64]);
});

test("ties go to the lowest class, and NaN is the largest value", () => {
  const label = (...data) =>
    labelsFromLogits({ data: Float32Array.from(data), classes: 3, height: 1, width: 1 }, [1, 1], [1, 1], false)
      .data[0];
  assert.equal(label(1, 1, 0), 0);
  assert.equal(label(0, 2, 2), 1);
  assert.equal(label(5, NaN, Infinity), 1);
  assert.equal(label(-Infinity, -Infinity, -5), 2);
});

test("the palette is that of PASCAL VOC", () => {
  assert.deepEqual(vocPalette(3), [[128, 0, 0], [0, 128, 0], [128, 128, 0]]);
});
