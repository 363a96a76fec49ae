/**
 * Semantic segmentation in browsers and Node.js, with the labels of the Python package segrt.
 *
 * @example
 * const seg = await Segmenter.load("model.onnx", { runtime: "onnxruntime-web/" });
 * const { labels, width, height, classNames } = await seg.segment(await createImageBitmap(file));
 */

import { SegrtError } from "./errors.js";
import { Network } from "./network.js";

export { SegrtError };

const inNode = Boolean(globalThis.process?.versions?.node);

/** A loaded model. */
export class Segmenter {
  #call;
  #close;

  /** Use `Segmenter.load`. */
  constructor({ name, classNames, palette, provider, resizes }, call, close) {
    /** The model's name. */
    this.name = name;
    /** The name of each class id. */
    this.classNames = classNames;
    /** (R, G, B) of each class id. */
    this.palette = palette;
    /** The execution provider: wasm, webgpu or cpu. */
    this.provider = provider;
    /** Whether the model itself states the inference size; if not, that of the picture is used. */
    this.resizes = resizes;
    this.#call = call;
    this.#close = close;
  }

  /**
   * Load a model: in browsers in a worker, so that the page stays responsive.
   *
   * @param {string | URL | Uint8Array} source URL of the .onnx file (in Node.js also a path), or
   *   its bytes
   * @param {object} [options]
   * @param {object} [options.ort] the module of ONNX Runtime; the network then runs in this thread
   * @param {string | URL} [options.runtime] in browsers without a bundler: URL of the folder `dist`
   *   of onnxruntime-web
   * @param {"wasm" | "webgpu" | "cpu"} [options.provider] default: wasm in browsers, cpu in Node.js
   * @param {number} [options.threads] of wasm; more than one needs a cross-origin isolated page
   * @param {(step: {what: "model" | "runtime", loaded: number, total: number | null}) => void}
   *   [options.onProgress] called with the bytes loaded so far
   * @returns {Promise<Segmenter>}
   * @throws {SegrtError} the model can't be loaded, or can't be run exactly as by segrt
   */
  static async load(source, options = {}) {
    const { ort, runtime, threads, onProgress, provider = inNode ? "cpu" : "wasm" } = options;
    if (!["wasm", "webgpu", "cpu"].includes(provider)) {
      throw new SegrtError(`The provider ${provider} is not valid: use wasm, webgpu or cpu.`);
    }
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    const absolute = (url) => (base ? new URL(url, base).href : String(url));
    if (!(source instanceof Uint8Array)) source = absolute(source);
    const folder = runtime && `${absolute(runtime).replace(/\/$/, "")}/`;
    const shared = { runtime: folder, threads, provider };
    if (inNode || ort) {
      const network = await Network.open(source, { ...shared, ort, onProgress });
      const { model } = network;
      const resizes = model.transforms.steps.length > 0 || model.transforms.fixed.some(Boolean);
      return new Segmenter(
        { ...model, provider, resizes },
        (image, settings) => network.segment(image, settings),
        () => network.release(),
      );
    }
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    const call = caller(worker);
    try {
      const info = await call("open", [source, shared], [], onProgress);
      const segment = (image, settings) =>
        call("segment", [image, settings], image instanceof ImageBitmap ? [image] : []);
      return new Segmenter(info, segment, () => worker.terminate());
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /**
   * Segment a picture. Calls wait for each other. An ImageBitmap is closed.
   *
   * @param {ImageBitmap | ImageData | {data: Uint8Array, width: number, height: number}} image
   *   data has 3 or 4 values per pixel, R, G, B and alpha, which is dropped
   * @param {{targetSize?: null | number | [number, number]}} [settings] inference size, as in Python:
   *   null for the model's own, else that of the picture; -1 for that of the picture; N to fit
   *   inside N x N; or [height, width]
   * @returns {Promise<{labels: Uint16Array, counts: Uint32Array, width: number, height: number,
   *   inferenceSize: [number, number], classNames: string[], palette: number[][]}>} labels: class
   *   ids, row by row; counts: pixels of each class
   * @throws {SegrtError} this is no picture, or there is too little memory
   */
  async segment(image, { targetSize = null } = {}) {
    const result = await this.#call(image, { targetSize });
    return { ...result, classNames: this.classNames, palette: this.palette };
  }

  /** Free the model's memory; the Segmenter can't be used afterwards. */
  async close() {
    await this.#close();
    this.#call = async () => {
      throw new SegrtError("This Segmenter is closed: load another one.");
    };
  }
}

/** Calls by message, and their answers. */
function caller(worker) {
  const waiting = new Map();
  let next = 0;
  const fail = (message) => {
    for (const { reject } of waiting.values()) reject(new SegrtError(message));
    waiting.clear();
  };
  worker.addEventListener("error", (event) => {
    fail(`The worker of segrt-web stopped: ${event.message || "it can't be loaded"}`);
  });
  worker.addEventListener("message", ({ data: { id, progress, result, error } }) => {
    const call = waiting.get(id);
    if (progress) {
      call?.onProgress?.(progress);
      return;
    }
    waiting.delete(id);
    if (error === undefined) call?.resolve(result);
    else call?.reject(new SegrtError(error));
  });
  return (method, args, transfer, onProgress) =>
    new Promise((resolve, reject) => {
      waiting.set(++next, { resolve, reject, onProgress });
      worker.postMessage({ id: next, method, args }, transfer);
    });
}
