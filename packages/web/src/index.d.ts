/** An error whose message is one sentence for the user. */
export class SegrtError extends Error {}

export interface Progress {
  what: "model" | "runtime";
  loaded: number;
  /** Bytes; null if the server does not say. */
  total: number | null;
}

export interface LoadOptions {
  /** The module of ONNX Runtime; the network then runs in this thread. */
  ort?: object;
  /** In browsers without a bundler: URL of the folder `dist` of onnxruntime-web. */
  runtime?: string | URL;
  /** Default: wasm in browsers, cpu in Node.js. */
  provider?: "wasm" | "webgpu" | "cpu";
  /** Threads of wasm; more than one needs a cross-origin isolated page. */
  threads?: number;
  onProgress?: (step: Progress) => void;
}

export interface Picture {
  /** 3 or 4 values per pixel: R, G, B and alpha, which is dropped. */
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

export interface Result {
  /** Class ids, row by row. */
  labels: Uint16Array;
  /** Pixels of each class. */
  counts: Uint32Array;
  width: number;
  height: number;
  /** [height, width] at which the network ran. */
  inferenceSize: [number, number];
  classNames: string[];
  palette: number[][];
}

export class Segmenter {
  private constructor();
  readonly name: string;
  readonly classNames: string[];
  /** (R, G, B) of each class id. */
  readonly palette: number[][];
  readonly provider: "wasm" | "webgpu" | "cpu";
  /** Whether the model itself states the inference size. */
  readonly resizes: boolean;
  static load(source: string | URL | Uint8Array, options?: LoadOptions): Promise<Segmenter>;
  /** An ImageBitmap is closed. */
  segment(
    image: ImageBitmap | ImageData | Picture,
    settings?: { targetSize?: null | number | [number, number] },
  ): Promise<Result>;
  close(): Promise<void>;
}
