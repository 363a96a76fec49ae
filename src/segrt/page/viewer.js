/* The components that the server's page and the page of `segrt web` share: how a picture gets in, and
 * the result with its overlay, legend, probe and downloads. */

const $ = (id) => document.getElementById(id);

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const STAGE = `
  <div id="view" role="application" tabindex="0" aria-label="Segmented picture"
    aria-describedby="keys">
    <canvas id="canvas"></canvas>
    <div id="probe" hidden></div>
  </div>
  <p id="keys" hidden>
    Use the arrow keys to move a probe that announces the class of a pixel; hold Shift to move it ten
    times as far.
  </p>
  <figcaption id="reading" aria-hidden="true"></figcaption>
  <p id="spoken" class="visually-hidden" aria-live="polite"></p>`;

const SIDE = `
  <label for="opacity">
    Opacity of the classes <output id="percent" for="opacity">55 %</output>
  </label>
  <input id="opacity" type="range" min="0" max="100" value="55">
  <label for="split">
    Only the photo <output id="part" for="split">0 %</output>
  </label>
  <input id="split" type="range" min="0" max="100" value="0">
  <label for="outlines">
    Outlines <input id="outlines" type="checkbox">
  </label>
  <h2>Classes</h2>
  <p class="hint">Select a class to hide or show it, or show it alone.</p>
  <ul id="legend"></ul>
  <h2>Download</h2>
  <div id="downloads">
    <button id="save-labels" type="button" title="Indexed PNG: pixel values are class ids">
      Labels <span>PNG</span>
    </button>
    <button id="save-overlay" type="button" title="The picture as shown here, at full size">
      Overlay <span>PNG</span>
    </button>
  </div>`;

/** An element with a text. */
export function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Fill the list `#info` in the header with names and values. */
export function showInfo(rows) {
  $("info").replaceChildren(
    ...Object.entries(rows).map(([name, value]) => {
      const row = document.createElement("div");
      row.append(element("dt", name), element("dd", value));
      return row;
    }),
  );
}

/** Let the user save a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A button in the header that goes through the system's colours, light ones and dark ones. */
export function offerThemes() {
  const themes = { "": "System colours", light: "Light colours", dark: "Dark colours" };
  const button = element("button", "", "quiet");
  button.id = "theme";
  button.type = "button";
  const apply = (theme) => {
    document.documentElement.style.colorScheme = theme || "light dark";
    button.textContent = themes[theme];
  };
  let theme = localStorage.getItem("theme") ?? "";
  apply(theme in themes ? theme : (theme = ""));
  button.addEventListener("click", () => {
    const names = Object.keys(themes);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    localStorage.setItem("theme", theme);
    apply(theme);
  });
  document.querySelector("header").append(button);
}

/**
 * Buttons that go through pictures or pages, in front of `#choose`.
 *
 * @param {string} id
 * @param {string} what of which there are several, such as "page"
 * @param {(at: number) => void} go called with the zero-based number of the next one
 * @returns {(at: number, count: number) => void} shows where one is; hidden if there is only one
 */
export function stepper(id, what, go) {
  const nav = document.createElement("nav");
  const place = element("span", "");
  let [at, count] = [0, 1];
  nav.id = id;
  nav.className = "steps";
  nav.hidden = true;
  nav.ariaLabel = `Go to another ${what}`;
  const [previous, next] = [["Previous", -1], ["Next", 1]].map(([name, step]) => {
    const button = element("button", name, "quiet");
    button.type = "button";
    button.ariaLabel = `${name} ${what}`;
    button.addEventListener("click", () => go((at + step + count) % count));
    return button;
  });
  nav.append(previous, place, next);
  $("choose").before(nav);
  return (now, of) => {
    [at, count] = [now, of];
    nav.hidden = count < 2;
    place.textContent = `${what[0].toUpperCase()}${what.slice(1)} ${at + 1} of ${count}`;
  };
}

/**
 * Call `pick` with each picture that is chosen, dropped or pasted. Of several, the first is picked,
 * and buttons go to the others.
 *
 * @param {(file: Blob, name: string) => void} pick
 * @returns {(files: Iterable<File>) => void} as if the user chose these files; none to forget them
 */
export function takePictures(pick) {
  let files = [];
  const show = (at) => {
    place(at, files.length);
    pick(files[at], files[at].name);
  };
  const place = stepper("several", "picture", show);
  const take = (chosen) => {
    if (!chosen.length) return;
    files = [...chosen];
    show(0);
  };
  $("file").addEventListener("change", () => {
    take([...$("file").files]);
    $("file").value = ""; // so that the same file can be chosen again
  });
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
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  return (chosen) => {
    place(0, 0);
    take(chosen);
  };
}

/* Drawn by tools/draw_scenes.py: title, width, height, and patterns of classes that a model for such
 * pictures has. */
const STREET = [/\broad\b/, /\bcar\b/];
const EXAMPLES = {
  street: ["Street", 480, 360, STREET],
  avenue: ["Avenue", 480, 360, STREET],
  evening: ["Evening", 480, 360, STREET],
  indoor: ["Living room", 480, 320, [/\bwall\b/, /\b(floor|sofa)\b/]],
  portrait: ["Portrait", 384, 480, [/^background$/, /\b(person|human|portrait|hair|skin)\b/]],
  aerial: ["From above", 480, 480, [/forest|farmland|agricultur|cropland|impervious/]],
  microscopy: ["Cells", 480, 360, [/nucle|\bcells?\b|mitosis|cytoplasm|stroma/]],
};

/**
 * Offer pictures to try in `#examples`: those that suit the model, or all if none does.
 *
 * @param {string[]} classNames of the model
 * @param {(files: File[]) => void} take called with the one that is chosen
 */
export function offerExamples(classNames, take) {
  const names = classNames.map((name) => name.toLowerCase());
  const suits = (patterns) => patterns.every((one) => names.some((name) => one.test(name)));
  const all = Object.entries(EXAMPLES);
  const suiting = all.filter(([, [, , , patterns]]) => suits(patterns));
  const offered = (suiting.length ? suiting : all).map(([name, [title, width, height]]) => {
    const button = element("button", "", "example");
    const picture = new Image(width, height);
    const item = document.createElement("li");
    picture.alt = "";
    picture.loading = "lazy";
    picture.src = `example-${name}.webp`;
    button.type = "button";
    button.append(picture, element("span", title));
    button.addEventListener("click", async () => {
      try {
        const answer = await fetch(picture.src);
        if (!answer.ok) throw new Error(answer.statusText);
        take([new File([await answer.blob()], `${name}.webp`)]);
      } catch {
        $("error").textContent = "This example can't be loaded: is its server running?";
      }
    });
    item.append(button);
    return item;
  });
  $("examples").querySelector("ul").replaceChildren(...offered);
  $("examples").hidden = false;
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

/**
 * @typedef {object} Shown
 * @property {string} stem the picture's name without its suffix
 * @property {CanvasImageSource} photo
 * @property {Uint16Array} labels class ids, row by row
 * @property {number} width
 * @property {number} height
 * @property {{id: number, name: string, color: number[], share: number}[]} classes those present,
 *   the largest first
 */

/** The result on the page, in `#stage` and `#side`. */
export class Viewer {
  #shown = null;
  #coloured = null;
  #lines = null; // outlines between classes, while they are shown
  #hidden = new Set(); // class ids
  #at = null; // position of the probe: {x, y} in pixels of the picture

  /** @param {() => Promise<Blob> | Blob} labelsPng makes the label picture of what is shown */
  constructor(labelsPng) {
    $("stage").innerHTML = STAGE;
    $("side").innerHTML = SIDE;
    const view = $("view");
    view.addEventListener("pointermove", (event) => this.#point(event));
    view.addEventListener("pointerdown", (event) => this.#point(event)); // touch has no hover
    view.addEventListener("keydown", (event) => this.#move(event));
    $("opacity").addEventListener("input", () => {
      $("percent").textContent = `${$("opacity").value} %`;
      this.#draw();
    });
    $("split").addEventListener("input", () => {
      $("part").textContent = `${$("split").value} %`;
      this.#draw();
    });
    $("outlines").addEventListener("change", () => this.#colour());
    $("save-labels").addEventListener("click", async () =>
      save(await labelsPng(), `${this.#shown.stem}_res.png`),
    );
    $("save-overlay").addEventListener("click", () => {
      const { stem } = this.#shown;
      $("canvas").toBlob((blob) => save(blob, `${stem}_overlay.png`));
    });
  }

  /**
   * Show a result.
   *
   * @param {Shown} result
   * @param {{keepHidden?: boolean}} [options] whether classes that are hidden stay so, as in a video
   */
  show(result, { keepHidden = false } = {}) {
    this.#shown?.photo?.close?.();
    this.#shown = result;
    if (!keepHidden) this.#hidden.clear();
    $("start").hidden = true;
    $("stage").hidden = $("side").hidden = false;
    const canvas = $("canvas");
    if (canvas.width !== result.width || canvas.height !== result.height) {
      canvas.width = result.width;
      canvas.height = result.height;
      $("view").style.setProperty("--width", result.width);
      $("view").style.setProperty("--ratio", result.width / result.height);
    }
    const { width, height } = result;
    const stays = keepHidden && this.#at && this.#at.x < width && this.#at.y < height;
    if (!stays) {
      this.#at = null;
      $("probe").hidden = true;
      $("reading").textContent = "Point at the picture, or focus it and use the arrow keys.";
      $("spoken").textContent = "";
    }
    $("legend").replaceChildren(...result.classes.map((one) => this.#legendRow(one)));
    this.#hide();
    if (stays) this.#read(false);
  }

  /** Show nothing: the last picture could not be segmented. */
  clear() {
    this.#shown?.photo?.close?.();
    this.#shown = this.#at = null;
    $("start").hidden = false;
    $("stage").hidden = $("side").hidden = true;
  }

  #legendRow(one) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "class";
    button.dataset.id = one.id;
    const swatch = element("span", "", "swatch");
    swatch.style.backgroundColor = `rgb(${one.color.join(" ")})`;
    const share = element("span", percent(one.share), "share");
    button.append(swatch, element("span", one.name, "name"), share);
    button.addEventListener("click", () => {
      const hide = !this.#hidden.delete(one.id);
      if (hide) this.#hidden.add(one.id);
      this.#hide();
    });
    const alone = element("button", "Only", "only");
    alone.type = "button";
    alone.dataset.id = one.id;
    alone.ariaLabel = `Only ${one.name}`;
    alone.addEventListener("click", () => {
      const others = this.#shown.classes.map((other) => other.id).filter((id) => id !== one.id);
      const isAlone = !this.#hidden.has(one.id) && others.every((id) => this.#hidden.has(id));
      this.#hidden = new Set(isAlone ? [] : others);
      this.#hide();
    });
    row.append(button, alone);
    return row;
  }

  /** Paint, and mark in the legend, what is hidden. */
  #hide() {
    const visible = this.#shown.classes.filter((one) => !this.#hidden.has(one.id));
    for (const button of $("legend").querySelectorAll("button")) {
      const id = Number(button.dataset.id);
      const isShown = !this.#hidden.has(id);
      const isAlone = isShown && visible.length === 1;
      button.ariaPressed = String(button.className === "only" ? isAlone : isShown);
    }
    this.#colour();
  }

  /** Paint the label map in the colours of the visible classes. */
  #colour() {
    const { classes, labels, width, height } = this.#shown;
    const table = new Uint32Array(65536); // RGBA, little-endian as in all browsers
    for (const { id, color: [r, g, b] } of classes) {
      if (!this.#hidden.has(id)) table[id] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
    this.#coloured = new OffscreenCanvas(width, height);
    this.#coloured.getContext("2d").putImageData(image, 0, 0);
    this.#lines = $("outlines").checked ? this.#outline() : null;
    this.#draw();
  }

  /** White lines between classes, except between two that are hidden; as in Python's overlays. */
  #outline() {
    const { classes, labels, width, height } = this.#shown;
    const visible = new Uint8Array(65536);
    for (const { id } of classes) visible[id] = !this.#hidden.has(id);
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const thickness = Math.max(1, Math.round(Math.sqrt(width * height) / 600));
    const before = (thickness - 1) >> 1;
    const isEdge = (a, b) => a !== b && (visible[a] || visible[b]);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const across = x > 0 && isEdge(labels[i], labels[i - 1]);
        if (!across && !(y > 0 && isEdge(labels[i], labels[i - width]))) continue;
        const [left, right] = [Math.max(0, x - before), Math.min(width, x - before + thickness)];
        const bottom = Math.min(height, y - before + thickness);
        for (let row = Math.max(0, y - before); row < bottom; row++) {
          pixels.fill(0xbfffffff, row * width + left, row * width + right); // three quarters white
        }
      }
    }
    const lines = new OffscreenCanvas(width, height);
    lines.getContext("2d").putImageData(image, 0, 0);
    return lines;
  }

  #draw() {
    const canvas = $("canvas");
    const pen = canvas.getContext("2d");
    pen.globalAlpha = 1;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(this.#shown.photo, 0, 0, canvas.width, canvas.height);
    const left = Math.round(($("split").valueAsNumber / 100) * canvas.width);
    const width = canvas.width - left;
    if (!width) return;
    for (const [layer, alpha] of [
      [this.#coloured, $("opacity").valueAsNumber / 100],
      [this.#lines, 1],
    ]) {
      if (!layer) continue;
      pen.globalAlpha = alpha;
      pen.drawImage(layer, left, 0, width, canvas.height, left, 0, width, canvas.height);
    }
  }

  /** Show the class of the pixel at the probe; announce it only if a key moved the probe. */
  #read(announce) {
    const { classes, labels, width } = this.#shown;
    const { x, y } = this.#at;
    const id = labels[y * width + x];
    const one = classes.find((c) => c.id === id);
    const position = `column ${x + 1}, row ${y + 1}`;
    const swatch = element("span", "", "swatch");
    swatch.style.backgroundColor = `rgb(${one.color.join(" ")})`;
    const details = ` ${position}, ${percent(one.share)} of the picture`;
    $("reading").replaceChildren(swatch, element("strong", one.name), details);
    if (announce) $("spoken").textContent = `${one.name}, ${position}`;
    for (const button of $("legend").querySelectorAll(".class")) {
      button.classList.toggle("current", Number(button.dataset.id) === id);
    }
  }

  #point(event) {
    const { width, height } = this.#shown;
    const box = $("canvas").getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    this.#at = { x, y };
    $("probe").hidden = true;
    this.#read(false);
  }

  #move(event) {
    const direction = DIRECTIONS[event.key];
    if (!direction) return;
    event.preventDefault();
    const { width, height } = this.#shown;
    const [dx, dy] = direction;
    const step = Math.max(1, Math.round(Math.max(width, height) / 100));
    const far = event.shiftKey ? 10 * step : step;
    const at = (this.#at ??= { x: width >> 1, y: height >> 1 });
    at.x = Math.min(width - 1, Math.max(0, at.x + dx * far));
    at.y = Math.min(height - 1, Math.max(0, at.y + dy * far));
    const probe = $("probe");
    probe.style.left = `${(100 * (at.x + 0.5)) / width}%`;
    probe.style.top = `${(100 * (at.y + 0.5)) / height}%`;
    probe.hidden = false;
    this.#read(true);
  }
}
