/* A loaded model in this thread: bytes in, label maps out. */

import { SegrtError } from "./errors.js";
import { readModel } from "./model.js";
import { finish } from "./postprocess.js";
import { rgb } from "./pixels.js";

/** The files of onnxruntime-web's folder `dist` that each provider needs. */
export const RUNTIME_FILES = {
  wasm: ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"],
  webgpu: [
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
  ],
};

const MAX_SIDE = 65536;

/** @typedef {(step: {what: "model" | "runtime", loaded: number, total: number | null}) => void} OnProgress */

export class Network {
  #session;
  #ort;
  #last = Promise.resolve(); // the runtime runs one picture at a time

  constructor(model, session, ort, provider) {
    this.model = model;
    this.provider = provider;
    this.#session = session;
    this.#ort = ort;
  }

  /**
   * Load a model.
   *
   * @param {string | Uint8Array} source a URL (in Node.js also a path), or the bytes
   * @param {{ort?: object, runtime?: string, provider?: "wasm" | "webgpu" | "cpu", threads?: number,
   *   onProgress?: OnProgress}} options
   */
  static async open(source, { ort, runtime, provider, threads, onProgress = () => {} }) {
    // Refuse what can't run before megabytes of the runtime are downloaded.
    const bytes = typeof source === "string" ? await read(source, "model", onProgress) : source;
    const model = readModel(bytes);
    ort ??= await importRuntime(runtime, provider, threads, onProgress);
    let session;
    try {
      session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
    } catch (cause) {
      throw new SegrtError(`ONNX Runtime can't load this model: ${firstLine(cause)}`, { cause });
    }
    return new Network(model, session, ort, provider);
  }

  /**
   * Segment one image; see `Segmenter.segment`.
   *
   * @returns {Promise<{labels: Uint16Array, counts: Uint32Array, width: number, height: number,
   *   inferenceSize: number[]}>}
   */
  segment(image, { targetSize = null } = {}) {
    const done = this.#last.then(() => this.#segment(image, checkTarget(targetSize)));
    this.#last = done.catch(() => {});
    return done;
  }

  async #segment(image, targetSize) {
    const { model } = this;
    const pixels = rgb(image);
    const layout = model.transforms.layout([pixels.height, pixels.width], targetSize);
    const [height, width] = layout.size;
    let output;
    try {
      const values = model.transforms.apply(pixels, layout);
      const data = model.inputType === "uint8" ? Uint8Array.from(values, Math.round) : values;
      const dims = [1, model.transforms.channels, height, width];
      const input = new this.#ort.Tensor(model.inputType, data, dims);
      output = (await this.#session.run({ [model.inputName]: input }))[model.outputName];
    } catch (cause) {
      throw new SegrtError(
        `The network failed on ${width} × ${height} pixels, probably for lack of memory: choose a ` +
          `smaller inference size. (${firstLine(cause)})`,
        { cause },
      );
    }
    const labels = finish(output, model, layout);
    output.dispose?.();
    const counts = new Uint32Array(model.classNames.length);
    for (const label of labels) counts[label]++;
    return { labels, counts, width: pixels.width, height: pixels.height, inferenceSize: layout.size };
  }

  /** Free the memory of the session. */
  async release() {
    await this.#session.release?.();
  }
}

function checkTarget(value) {
  const isSide = (side) => Number.isInteger(side) && side >= 1 && side <= MAX_SIDE;
  const pair = Array.isArray(value) && value.length === 2 && value.every(isSide);
  if (value === null || value === -1 || isSide(value) || pair) return value;
  throw new SegrtError(`targetSize ${value} is not valid: use -1, N or [height, width].`);
}

const firstLine = (error) => String(error?.message ?? error).trim().split("\n")[0].slice(0, 300);

/** The bytes of a URL or, in Node.js, of a path. */
async function read(source, what, onProgress) {
  if (globalThis.process?.versions?.node && !/^(https?|data|blob):/.test(source)) {
    const { readFile } = await import("node:fs/promises");
    try {
      return await readFile(source.startsWith("file:") ? new URL(source) : source);
    } catch (cause) {
      throw new SegrtError(`${source} can't be read (${cause.code}).`, { cause });
    }
  }
  let answer;
  try {
    answer = await fetch(source);
    if (!answer.ok) throw new SegrtError(`${source} can't be loaded: the server answers ${answer.status}.`);
    const encoded = answer.headers.get("content-encoding");
    const total = encoded ? null : Number(answer.headers.get("content-length")) || null;
    const parts = [];
    let loaded = 0;
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      loaded += value.length;
      onProgress({ what, loaded, total });
    }
    const bytes = new Uint8Array(loaded);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  } catch (cause) {
    if (cause instanceof SegrtError) throw cause;
    throw new SegrtError(`${source} can't be loaded: is there a connection?`, { cause });
  }
}

/** onnxruntime-node in Node.js; else onnxruntime-web, from its folder `dist` or by name. */
async function importRuntime(folder, provider, threads, onProgress) {
  if (globalThis.process?.versions?.node) {
    try {
      return await import("onnxruntime-node");
    } catch (cause) {
      throw new SegrtError("onnxruntime-node is not installed: run  npm install onnxruntime-node", { cause });
    }
  }
  if (provider === "webgpu" && !(await globalThis.navigator?.gpu?.requestAdapter())) {
    throw new SegrtError("This browser has no WebGPU here: use the provider wasm.");
  }
  let ort;
  if (folder) {
    const [module, , wasm] = RUNTIME_FILES[provider];
    const binary = await read(new URL(wasm, folder).href, "runtime", onProgress);
    ort = await import(new URL(module, folder).href);
    ort.env.wasm.wasmPaths = folder;
    ort.env.wasm.wasmBinary = binary.buffer;
  } else {
    try {
      ort = await (provider === "webgpu" ? import("onnxruntime-web/webgpu") : import("onnxruntime-web/wasm"));
    } catch (cause) {
      throw new SegrtError(
        "onnxruntime-web is not found: set runtime to the URL of its folder dist, or use a bundler.",
        { cause },
      );
    }
  }
  const isolated = globalThis.crossOriginIsolated;
  ort.env.wasm.numThreads = isolated ? (threads ?? Math.min(4, navigator.hardwareConcurrency || 1)) : 1;
  return ort;
}
