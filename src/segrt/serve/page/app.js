import { decodeLabels } from "./png.js";
import {
  element,
  offerExamples,
  offerThemes,
  save,
  showInfo,
  stepper,
  takePictures,
  Viewer,
} from "./viewer.js";

const $ = (id) => document.getElementById(id);
const [status, error] = ["status", "error"].map($);

let token = ""; // kept while the page is open, never stored
let answered = null; // what belongs to the result on the page: {stem, png, answer}
let picture = null; // the last one chosen: {blob, name, page}
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
  offerExamples(info.classes, take);
}

/** Show the call that was made, as a command and as a program. */
function showCode(name, query) {
  for (const option of ["visualize", "inputImage"]) query.delete(option);
  const url = new URL(`semantic-segmentation?${query}`, location.href);
  const path = /^[\w./-]+$/.test(name) ? name : "picture.png";
  const secret = token ? " -H 'Authorization: Bearer TOKEN'" : "";
  const headers = token ? ', "Authorization": "Bearer TOKEN"' : "";
  $("curl").textContent =
    `curl -s -H 'Content-Type: application/octet-stream'${secret} --data-binary @${path} '${url}'`;
  $("python").textContent = `import httpx

headers = {"Content-Type": "application/octet-stream"${headers}}
with open("${path}", "rb") as file:
    answer = httpx.post("${url}", content=file.read(), headers=headers)
print(answer.json()["result"]["classes"])`;
}

const code = document.createElement("details");
code.append(element("summary", "This call as code"));
for (const [id, title] of Object.entries({ curl: "curl", python: "Python" })) {
  const text = element("pre", "");
  const copy = element("button", `Copy ${title}`);
  text.id = id;
  text.tabIndex = 0; // so that the keyboard can scroll it
  copy.type = "button";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      status.textContent = `The ${title} code is in the clipboard.`;
    } catch {
      getSelection().selectAllChildren(text); // without https, or if the user forbids it
      status.textContent = "Selected: copy it with the keyboard.";
    }
  });
  code.append(text, copy);
}
$("side").append(code);

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** Segment a picture, or a page of a document, and show it; a request in progress is cancelled. */
async function segment(blob, name, page = 0) {
  picture = { blob, name, page };
  running.abort();
  const mine = (running = new AbortController());
  error.textContent = "";
  if (page === 0) showPage(0, 1);
  status.textContent = `Segmenting ${name} …`;
  document.body.classList.add("busy");
  try {
    const query = new URLSearchParams({ labelFormat: "png", visualize: "false", page });
    if ($("size").value) query.set("targetSize", $("size").value);
    const begin = performance.now();
    // The server reads formats that most browsers can't show, such as PDF and TIFF.
    let photo = page === 0 ? await createImageBitmap(blob).catch(() => null) : null;
    if (!photo) query.set("inputImage", "true");
    const reply = await call(`semantic-segmentation?${query}`, {
      method: "POST",
      body: blob,
      // Whatever its name says: the server looks at the content.
      headers: { "Content-Type": "application/octet-stream" },
      signal: mine.signal,
    });
    const answer = await reply.text();
    const took = performance.now() - begin;
    const { result } = JSON.parse(answer);
    const png = bytesOf(result.labelMap);
    const { width, height, labels } = await decodeLabels(png);
    photo ??= await createImageBitmap(new Blob([bytesOf(result.inputImage)]));
    if (mine.signal.aborted) return;
    const { pages } = result;
    const classes = result.classes.filter((c) => c.share > 0).sort((a, b) => b.share - a.share);
    const stem = name.replace(/\.[^.]*$/, "") + (pages > 1 ? `_${page}` : "");
    answered = { stem, png, answer };
    showPage(page, pages);
    viewer.show({ stem, photo, labels, width, height, classes });
    if (pages === 1) query.delete("page");
    showCode(name, query);
    const where = pages > 1 ? `${name}, page ${page + 1} of ${pages}` : name;
    const time = `${Math.round(took)} ms including upload`;
    status.textContent = `${where}: ${width} × ${height} pixels, ${time}.`;
  } catch (cause) {
    if (cause.name === "AbortError") return;
    viewer.clear();
    error.textContent = `${name}: ${cause.message}`;
    status.textContent = "";
  } finally {
    if (mine === running) document.body.classList.remove("busy");
  }
}

offerThemes();
const take = takePictures(segment);
const showPage = stepper("pages", "page", (page) => segment(picture.blob, picture.name, page));
$("size").addEventListener("change", () => {
  if (picture) segment(picture.blob, picture.name, picture.page);
});
$("again").addEventListener("click", () => {
  running.abort();
  document.body.classList.remove("busy");
  picture = null;
  take([]);
  showPage(0, 1);
  viewer.clear();
  status.textContent = error.textContent = "";
  $("examples").querySelector("button")?.focus();
});
$("login-cancel").addEventListener("click", () => $("login").close());

askInfo().catch((cause) => (error.textContent = cause.message));
