/* The thread in which the network runs in browsers: calls of `Network`, by message. */

import { SegrtError } from "./errors.js";
import { Network } from "./network.js";

let network;

const METHODS = {
  async open(id, source, options) {
    network = await Network.open(source, {
      ...options,
      onProgress: (progress) => postMessage({ id, progress }),
    });
    const { model, provider } = network;
    const { name, classNames, palette, transforms } = model;
    const resizes = transforms.steps.length > 0 || transforms.fixed.some((side) => side !== null);
    return [{ name, classNames, palette, provider, resizes }];
  },
  async segment(id, image, options) {
    const result = await network.segment(image, options);
    return [result, [result.labels.buffer, result.counts.buffer]];
  },
};

addEventListener("message", async ({ data: { id, method, args } }) => {
  try {
    const [result, transfer] = await METHODS[method](id, ...args);
    postMessage({ id, result }, transfer ?? []);
  } catch (error) {
    const known = error instanceof SegrtError;
    postMessage({ id, error: known ? error.message : `Unexpected: ${error?.message ?? error}` });
  }
});
