/* Sends the forms of /docs, and shows the call and its response. */

import { element, offerThemes } from "./viewer.js";

const EXAMPLE = "example-street.webp";
const SHOWN = 24; // members of a list; longer ones are shortened
const LETTERS = 160;

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The parts of the call that a form describes: {query, fields, file, media}; fields are JSON values. */
function read(form) {
  const set = form.querySelector("fieldset:not([hidden])");
  const media = set?.dataset.media ?? null;
  const fields = {};
  let file = null;
  for (const input of set?.querySelectorAll("input, select") ?? []) {
    if (input.type === "file") file = { name: input.name, chosen: input.files[0] ?? null };
    else if (input.value !== "") {
      const isJson = input.type === "number" || ["true", "false"].includes(input.value);
      fields[input.name] = isJson ? JSON.parse(input.value) : input.value;
    }
  }
  return { media, fields, file };
}

const isRaw = (media) => media === "application/octet-stream";
const isForm = (media) => media === "multipart/form-data";

function addressOf(form, { media, fields }) {
  const url = new URL(form.dataset.path, document.baseURI);
  if (isRaw(media)) for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value);
  return url.href;
}

/** The call as a command. */
function curl(form, call) {
  const { media, fields, file } = call;
  const secret = document.getElementById("token")?.value ? " -H 'Authorization: Bearer TOKEN'" : "";
  const url = quoted(addressOf(form, call));
  const path = /^[\w.-]+$/.test(file?.chosen?.name ?? "") ? file.chosen.name : EXAMPLE;
  if (!media) return `curl -s${secret} ${url}`;
  if (isRaw(media)) return `curl -s${secret} -H 'Content-Type: ${media}' --data-binary @${path} ${url}`;
  if (isForm(media)) {
    const parts = Object.entries(fields).map(([name, value]) => ` -F ${quoted(`${name}=${value}`)}`);
    return `curl -s${secret} -F ${file.name}=@${path}${parts.join("")} ${url}`;
  }
  const body = JSON.stringify({ [file.name]: "IMAGE", ...fields }).replaceAll("%", "%%");
  const format = quoted(body.replace('"IMAGE"', '"%s"'));
  return (
    `printf ${format} "$(base64 -w0 ${path})" |\n` +
    `  curl -s${secret} -H 'Content-Type: ${media}' --data-binary @- ${url}`
  );
}

async function base64(blob) {
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    reader.onload = resolve;
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return reader.result.split(",")[1];
}

async function send(form, call) {
  const { media, fields, file } = call;
  const secret = document.getElementById("token")?.value;
  const headers = secret ? { Authorization: `Bearer ${secret}` } : {};
  let body;
  if (file) {
    const blob = file.chosen ?? (await (await fetch(new URL(EXAMPLE, import.meta.url))).blob());
    if (isForm(media)) {
      body = new FormData();
      body.append(file.name, blob, file.chosen?.name ?? EXAMPLE);
      for (const [name, value] of Object.entries(fields)) body.append(name, value);
    } else {
      headers["Content-Type"] = media;
      body = isRaw(media) ? blob : JSON.stringify({ [file.name]: await base64(blob), ...fields });
    }
  }
  return fetch(addressOf(form, call), { method: form.dataset.method, headers, body });
}

/** The start of long text and lists, and how much there is. */
function shortened(key, value) {
  if (typeof value === "string" && value.length > LETTERS) {
    return `${value.slice(0, LETTERS)}… (${value.length} characters)`;
  }
  if (Array.isArray(value) && value.length > SHOWN) {
    return [...value.slice(0, SHOWN), `… (${value.length} in all)`];
  }
  return value;
}

/** Base64 pictures in the result of a segmentation. */
function* pictures(result) {
  for (const [name, value] of Object.entries(result ?? {})) {
    if (typeof value !== "string") continue;
    const kind = value.startsWith("iVBOR") ? "png" : value.startsWith("/9j/") ? "jpeg" : null;
    if (!kind) continue;
    const figure = document.createElement("figure");
    const picture = new Image();
    picture.src = `data:image/${kind};base64,${value}`;
    picture.alt = `${name} of the result`;
    figure.append(picture, element("figcaption", `result.${name}`));
    yield figure;
  }
}

function prepare(form) {
  const answer = document.createElement("div");
  const command = element("pre", "");
  const status = element("p", "", "answer-status");
  const body = element("pre", "");
  const shown = element("div", "", "pictures");
  for (const [block, name] of [[command, "The call as a command"], [body, "Response"]]) {
    block.tabIndex = 0; // so that the keyboard can scroll it
    block.role = "group";
    block.ariaLabel = name;
  }
  status.role = "status";
  body.hidden = true;
  answer.append(command, status, body, shown);
  form.after(answer);
  const change = () => {
    const chosen = form.elements.media?.value;
    for (const set of form.querySelectorAll("fieldset")) {
      set.hidden = set.disabled = chosen !== undefined && set.dataset.media !== chosen;
    }
    command.textContent = curl(form, read(form));
  };
  form.addEventListener("input", change);
  document.getElementById("token")?.addEventListener("input", change);
  change();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    status.textContent = "Waiting for the response …";
    status.classList.remove("bad");
    body.hidden = true;
    shown.replaceChildren();
    const begin = performance.now();
    try {
      const reply = await send(form, read(form));
      const received = await reply.text();
      const took = Math.round(performance.now() - begin);
      const size = new Blob([received]).size.toLocaleString("en");
      status.textContent = `${reply.status} ${reply.statusText}, ${size} bytes, ${took} ms`;
      status.classList.toggle("bad", !reply.ok);
      body.hidden = false;
      if (!reply.headers.get("Content-Type")?.includes("json")) {
        body.textContent = received;
        return;
      }
      const content = JSON.parse(received);
      // Lists of numbers in one line.
      const text = JSON.stringify(content, shortened, 2);
      body.textContent = text.replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, " "));
      shown.replaceChildren(...pictures(content.result));
    } catch {
      status.textContent = "The server can't be reached: is it still running?";
      status.classList.add("bad");
    }
  });
}

offerThemes();
for (const form of document.forms) prepare(form);
