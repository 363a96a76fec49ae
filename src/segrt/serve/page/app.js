import { decodeLabels } from "./png.js";
import { element, save, showInfo, takePictures, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const [status, error] = ["status", "error"].map($);

let token = ""; // kept while the page is open, never stored
let answered = null; // what belongs to the result on the page: {stem, png, answer}
let picture = null; // the last picture chosen: {blob, name}
let running = new AbortController();

const viewer = new Viewer(() => new Blob([answered.png], { type: "image/png" }));
const download = element("button", "Response ");
download.id = "save-json";
download.type = "button";
download.title = "The response of the server";
download.append(element("span", "JSON"));
download.addEventListener("click", () =>
  save(new Blob([answered.answer], { type: "application/json" }), `${answered.stem}_res.json`),
);
$("downloads").append(download);

/** Ask the user for a token; rejects with the server's message if the dialog is cancelled. */
function askToken(why) {
  $("login-why").textContent = why;
  $("token").value = "";
  $("login").returnValue = "";
  $("login").showModal();
  return new Promise((resolve, reject) => {
    $("login").addEventListener(
      "close",
      () => {
        if ($("login").returnValue === "ok") resolve($("token").value.trim());
        else reject(new Error(why));
      },
      { once: true },
    );
  });
}

/** fetch with the token; a failed request throws an Error with the server's message. */
async function call(path, options = {}) {
  for (;;) {
    let answer;
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (cause) {
      if (cause.name === "AbortError") throw cause;
      throw new Error("The server can't be reached: is it still running?", { cause });
    }
    if (answer.ok) return answer;
    const failure = await answer.json().catch(() => ({}));
    const { status: code, statusText } = answer;
    const message = failure.errorMsg ?? `The server responded ${code} ${statusText}`;
    if (answer.status !== 401) throw new Error(message);
    token = await askToken(message);
  }
}

async function askInfo() {
  const info = await (await call("info")).json();
  const provider = info.provider.replace(/ExecutionProvider$/, "");
  showInfo({ Model: info.model, Provider: `${provider} ${info.precision}` });
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** Segment a picture and show it; a request in progress is cancelled. */
async function segment(blob, name) {
  picture = { blob, name };
  running.abort();
  const mine = (running = new AbortController());
  error.textContent = "";
  status.textContent = `Segmenting ${name} …`;
  document.body.classList.add("busy");
  try {
    const query = new URLSearchParams({ labelFormat: "png", visualize: "false" });
    if ($("size").value) query.set("targetSize", $("size").value);
    const begin = performance.now();
    const reply = await call(`semantic-segmentation?${query}`, {
      method: "POST",
      body: blob,
      headers: { "Content-Type": blob.type || "application/octet-stream" },
      signal: mine.signal,
    });
    const answer = await reply.text();
    const took = performance.now() - begin;
    const { result } = JSON.parse(answer);
    const png = bytesOf(result.labelMap);
    const { width, height, labels } = await decodeLabels(png);
    // The server reads formats that most browsers can't show, such as TIFF: then only the classes
    // are shown.
    const photo = await createImageBitmap(blob).catch(() => null);
    if (mine.signal.aborted) return;
    const classes = result.classes.filter((c) => c.share > 0).sort((a, b) => b.share - a.share);
    const stem = name.replace(/\.[^.]*$/, "");
    answered = { stem, png, answer };
    viewer.show({ stem, photo, labels, width, height, classes });
    const note = photo ? "" : " This browser can't show the picture itself.";
    const time = `${Math.round(took)} ms including upload`;
    status.textContent = `${name}: ${width} × ${height} pixels, ${time}.${note}`;
  } catch (cause) {
    if (cause.name === "AbortError") return;
    error.textContent = cause.message;
    status.textContent = "";
  } finally {
    if (mine === running) document.body.classList.remove("busy");
  }
}

takePictures(segment);
$("size").addEventListener("change", () => picture && segment(picture.blob, picture.name));
$("sample").addEventListener("click", async () => {
  try {
    await segment(await (await call("sample.png")).blob(), "sample.png");
  } catch (cause) {
    error.textContent = cause.message;
  }
});
$("login-cancel").addEventListener("click", () => $("login").close());

askInfo().catch((cause) => (error.textContent = cause.message));
