/* Runs segrt-web in Node.js for test_node.py: node parity.mjs steps|photos FOLDER [RUNTIME]. */

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

import { Segmenter } from "../../packages/web/src/index.js";
import { finish } from "../../packages/web/src/postprocess.js";
import { parseTransforms } from "../../packages/web/src/preprocess.js";

const [, , what, folder, runtime] = process.argv;
const read = (name) => readFileSync(`${folder}/${name}`);
const floats = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));

if (what === "steps") {
  const sizes = JSON.parse(read("cases.json")).map((one, n) => {
    const { meta, channels, fixed, source, target, dims } = one;
    const transforms = parseTransforms(meta.transforms, { resizeIn: meta.resize_in, channels, fixed });
    const layout = transforms.layout(source, target);
    const picture = { data: read(`${n}.rgb`), height: source[0], width: source[1], channels: 3 };
    writeFileSync(`${folder}/${n}.batch`, transforms.apply({ ...picture, data: Uint8Array.from(picture.data) }, layout));
    const model = {
      output: meta.output ?? "logits",
      classNames: meta.class_names,
      alignCorners: meta.upsample.align_corners,
      interpolateTo: meta.interpolate_to ?? "input",
    };
    writeFileSync(`${folder}/${n}.labels`, finish({ data: floats(read(`${n}.output`)), dims }, model, layout));
    return layout.size;
  });
  console.log(JSON.stringify(sizes));
} else {
  const ort = createRequire(`${runtime}/`)("onnxruntime-node");
  const { model, photos } = JSON.parse(read("photos.json"));
  const seg = await Segmenter.load(model, { ort });
  for (const [n, [height, width]] of photos.entries()) {
    const { labels } = await seg.segment({ data: read(`${n}.rgb`), width, height });
    writeFileSync(`${folder}/${n}.labels`, labels);
  }
  console.log(JSON.stringify({ name: seg.name, provider: seg.provider, classNames: seg.classNames }));
}
