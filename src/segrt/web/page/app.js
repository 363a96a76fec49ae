import { decode } from "./picture.js";
import { encodeLabels } from "./png.js";
import { Segmenter } from "./segrt-web/index.js";
import { offerExamples, offerThemes, showInfo, takePictures, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const [status, error] = ["status", "error"].map($);

const AUTOMATIC = 1024; // longer side of larger pictures, if the model states no inference size

let shown = null; // the result on the page
let picture = null; // the last picture chosen: {blob, name}
let latest = 0; // number of the last picture chosen; what was asked before it is dropped
let camera = null; // MediaStream

const viewer = new Viewer(async () => {
  const bytes = await encodeLabels(shown.labels, shown.width, shown.height, shown.palette);
  return new Blob([bytes], { type: "image/png" });
});

/** Let the service worker keep what is loaded, for use without a network. */
async function install() {
  if (!navigator.serviceWorker) return; // not https, for example
  try {
    await navigator.serviceWorker.register("sw.js");
    if (navigator.serviceWorker.controller) return;
    const taken = new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    });
    await Promise.race([taken, new Promise((resolve) => setTimeout(resolve, 5000))]);
  } catch {
    // Private windows may forbid it; the page works with a network.
  }
}

async function load() {
  await install();
  const site = await (await fetch("site.json")).json();
  let failure;
  for (const provider of site.providers) {
    if (provider === "webgpu" && !navigator.gpu) continue;
    const loaded = {};
    const total = site.bytes.model + site.bytes[provider];
    try {
      const seg = await Segmenter.load("model.onnx", {
        runtime: "onnxruntime-web",
        provider,
        onProgress(step) {
          loaded[step.what] = step.loaded;
          const done = (loaded.model ?? 0) + (loaded.runtime ?? 0);
          $("progress").value = Math.min(done / total, 1);
          const mb = (bytes) => (bytes / 1e6).toFixed(1);
          $("loading").firstElementChild.textContent =
            done < total ? `Loading ${mb(done)} of ${mb(total)} MB` : "Starting the network";
        },
      });
      const threads = crossOriginIsolated ? ", threads" : "";
      showInfo({ Model: seg.name, Runs: provider === "webgpu" ? "WebGPU" : `WebAssembly${threads}` });
      offerExamples(seg.classNames, take);
      return seg;
    } catch (cause) {
      failure = cause;
    }
  }
  throw failure;
}

const take = takePictures(segment);
const loading = load();
loading
  .then(() => (document.body.dataset.ready = "true"))
  .catch((cause) => (error.textContent = cause.message))
  .finally(() => ($("loading").hidden = true));

function targetSize(seg, { width, height }) {
  if ($("size").value) return Number($("size").value);
  return seg.resizes || Math.max(width, height) <= AUTOMATIC ? null : AUTOMATIC;
}

/** Segment one bitmap and show it; null if another picture was chosen meanwhile. */
async function run(bitmap, stem, mine, options) {
  const seg = await loading;
  const photo = await createImageBitmap(bitmap); // the other one goes to the worker
  const begin = performance.now();
  const result = await seg.segment(bitmap, { targetSize: targetSize(seg, bitmap) });
  if (mine !== latest) {
    photo.close();
    return null;
  }
  const { labels, counts, width, height, palette, inferenceSize } = result;
  await new Promise((resolve) => setTimeout(resolve)); // so that no task of this page is long
  const classes = seg.classNames
    .map((name, id) => ({ id, name, color: palette[id], share: counts[id] / labels.length }))
    .filter((one) => one.share > 0)
    .sort((a, b) => b.share - a.share);
  shown = { stem, photo, labels, width, height, classes, palette };
  viewer.show(shown, options);
  const at = `${inferenceSize[1]} × ${inferenceSize[0]}`;
  const scaled = at === `${width} × ${height}` ? "" : ` segmented at ${at},`;
  return `${width} × ${height} pixels,${scaled} ${Math.round(performance.now() - begin)} ms`;
}

async function segment(blob, name) {
  stopCamera();
  picture = { blob, name };
  const mine = ++latest;
  error.textContent = "";
  status.textContent = document.body.dataset.ready
    ? `Segmenting ${name} …`
    : `${name} is next, once the model is loaded.`;
  document.body.classList.add("busy");
  try {
    const bitmap = await decode(blob, name);
    const text = await run(bitmap, name.replace(/\.[^.]*$/, ""), mine);
    if (text) status.textContent = `${name}: ${text}`;
  } catch (cause) {
    if (mine !== latest) return;
    viewer.clear();
    error.textContent = cause.message;
    status.textContent = "";
  } finally {
    if (mine === latest) document.body.classList.remove("busy");
  }
}

/** Segment what the camera sees, frame after frame, until it is stopped. */
async function film() {
  const mine = ++latest;
  picture = null;
  error.textContent = status.textContent = "";
  try {
    const video = { facingMode: "environment", width: { ideal: 640 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video });
    if (mine !== latest) {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    camera = stream;
    $("camera").textContent = "Stop the camera";
    $("camera").ariaPressed = "true";
    const screen = document.createElement("video");
    Object.assign(screen, { muted: true, playsInline: true, srcObject: stream });
    await screen.play();
    while (mine === latest) {
      const text = await run(await createImageBitmap(screen), "camera", mine, { keepHidden: true });
      if (text && mine === latest) status.textContent = `Camera: ${text}`;
      await new Promise(requestAnimationFrame);
    }
  } catch (cause) {
    if (mine !== latest) return;
    stopCamera();
    const refused = ["NotAllowedError", "NotFoundError", "NotReadableError"].includes(cause.name);
    error.textContent = refused ? "The camera can't be used: allow it, or choose a picture." : cause.message;
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  latest++;
  $("camera").textContent = "Camera";
  $("camera").ariaPressed = "false";
}

offerThemes();
$("size").addEventListener("change", () => picture && segment(picture.blob, picture.name));
$("again").addEventListener("click", () => {
  stopCamera();
  document.body.classList.remove("busy");
  picture = null;
  take([]);
  viewer.clear();
  status.textContent = error.textContent = "";
  $("examples").querySelector("button")?.focus();
});
$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
$("camera").addEventListener("click", () => (camera ? stopCamera() : film()));
