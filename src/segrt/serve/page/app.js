import { decodeLabels } from "./png.js";

const $ = (id) => document.getElementById(id);
const [canvas, view, probe, status, error] = ["canvas", "view", "probe", "status", "error"].map($);

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let token = ""; // kept while the page is open, never stored
// The result on the page:
// {stem, photo, coloured, labels, width, height, classes, hidden, png, answer}
let shown = null;
let picture = null; // the last picture chosen: {blob, name}
let running = new AbortController();
let at = null; // position of the probe: {x, y} in pixels of the picture

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

async function showInfo() {
  const info = await (await call("info")).json();
  const provider = info.provider.replace(/ExecutionProvider$/, "");
  const rows = { Model: info.model, Provider: `${provider} ${info.precision}` };
  $("info").replaceChildren(
    ...Object.entries(rows).map(([name, value]) => {
      const row = document.createElement("div");
      row.append(element("dt", name), element("dd", value));
      return row;
    }),
  );
}

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

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
    shown = { stem, photo, labels, width, height, classes, hidden: new Set(), png, answer };
    show();
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

function show() {
  $("start").hidden = true;
  $("stage").hidden = $("side").hidden = false;
  canvas.width = shown.width;
  canvas.height = shown.height;
  at = null;
  probe.hidden = true;
  $("reading").textContent = "Point at the picture, or focus it and use the arrow keys.";
  $("spoken").textContent = "";
  $("legend").replaceChildren(...shown.classes.map(legendRow));
  colour();
}

function legendRow(one) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.ariaPressed = "true";
  button.dataset.id = one.id;
  const swatch = element("span", "", "swatch");
  swatch.style.backgroundColor = `rgb(${one.color.join(" ")})`;
  const share = element("span", percent(one.share), "share");
  button.append(swatch, element("span", one.name, "name"), share);
  button.addEventListener("click", () => {
    const hide = !shown.hidden.delete(one.id);
    if (hide) shown.hidden.add(one.id);
    button.ariaPressed = String(!hide);
    colour();
  });
  row.append(button);
  return row;
}

/** Paint the label map in the colours of the visible classes. */
function colour() {
  const table = new Uint32Array(65536); // RGBA, little-endian as in all browsers
  for (const { id, color: [r, g, b] } of shown.classes) {
    if (!shown.hidden.has(id)) table[id] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  const image = new ImageData(shown.width, shown.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[shown.labels[i]];
  shown.coloured = new OffscreenCanvas(shown.width, shown.height);
  shown.coloured.getContext("2d").putImageData(image, 0, 0);
  draw();
}

function draw() {
  const pen = canvas.getContext("2d");
  pen.globalAlpha = 1;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (shown.photo) pen.drawImage(shown.photo, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = $("opacity").valueAsNumber / 100;
  pen.drawImage(shown.coloured, 0, 0);
}

/** Show the class of the pixel at the probe; announce it only if a key moved the probe. */
function read(announce) {
  const id = shown.labels[at.y * shown.width + at.x];
  const one = shown.classes.find((c) => c.id === id);
  const position = `column ${at.x + 1}, row ${at.y + 1}`;
  const swatch = element("span", "", "swatch");
  swatch.style.backgroundColor = `rgb(${one.color.join(" ")})`;
  const details = ` ${position}, ${percent(one.share)} of the picture`;
  $("reading").replaceChildren(swatch, element("strong", one.name), details);
  if (announce) $("spoken").textContent = `${one.name}, ${position}`;
  for (const button of $("legend").querySelectorAll("button")) {
    button.classList.toggle("current", Number(button.dataset.id) === id);
  }
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * shown.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * shown.height);
  if (x < 0 || y < 0 || x >= shown.width || y >= shown.height) return;
  at = { x, y };
  probe.hidden = true;
  read(false);
}
view.addEventListener("pointermove", point);
view.addEventListener("pointerdown", point); // touch has no hover

view.addEventListener("keydown", (event) => {
  const direction = DIRECTIONS[event.key];
  if (!direction) return;
  event.preventDefault();
  const [dx, dy] = direction;
  const step = Math.max(1, Math.round(Math.max(shown.width, shown.height) / 100));
  const far = event.shiftKey ? 10 * step : step;
  at ??= { x: shown.width >> 1, y: shown.height >> 1 };
  at.x = Math.min(shown.width - 1, Math.max(0, at.x + dx * far));
  at.y = Math.min(shown.height - 1, Math.max(0, at.y + dy * far));
  probe.style.left = `${(100 * (at.x + 0.5)) / shown.width}%`;
  probe.style.top = `${(100 * (at.y + 0.5)) / shown.height}%`;
  probe.hidden = false;
  read(true);
});

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

$("opacity").addEventListener("input", () => {
  $("percent").textContent = `${$("opacity").value} %`;
  draw();
});
$("save-labels").addEventListener("click", () =>
  save(new Blob([shown.png], { type: "image/png" }), `${shown.stem}_res.png`),
);
$("save-overlay").addEventListener("click", () =>
  canvas.toBlob((blob) => save(blob, `${shown.stem}_overlay.png`)),
);
$("save-json").addEventListener("click", () =>
  save(new Blob([shown.answer], { type: "application/json" }), `${shown.stem}_res.json`),
);

const pick = (file) => file && segment(file, file.name);
$("file").addEventListener("change", () => {
  pick($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
$("size").addEventListener("change", () => picture && segment(picture.blob, picture.name));
$("sample").addEventListener("click", async () => {
  try {
    await segment(await (await call("sample.png")).blob(), "sample.png");
  } catch (cause) {
    error.textContent = cause.message;
  }
});
$("login-cancel").addEventListener("click", () => $("login").close());

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("drag");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("drag");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drag");
  pick(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => pick(event.clipboardData.files[0]));

showInfo().catch((cause) => (error.textContent = cause.message));
