/* Keeps the files of the page, so that it works without a network once it was loaded. */

const SITE = null; // {version, files, large}, set by `segrt web`

const PREFIX = `segrt ${registration.scope} `; // several pages may share a host
const CACHE = PREFIX + SITE.version;

// With these the page is isolated from others, and WebAssembly may use threads.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

addEventListener("install", (event) => {
  const small = SITE.files.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(small)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    }
    await clients.claim();
  };
  event.waitUntil(tidy());
});

function isolated(answer) {
  const headers = new Headers(answer.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

/** Large files are kept as they pass by, so that they are loaded only once. */
async function answer(request, event) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolated(kept);
  const fresh = await fetch(request);
  const path = new URL(request.url).pathname.slice(new URL(registration.scope).pathname.length);
  if (fresh.ok && SITE.large.includes(path)) {
    event.waitUntil(cache.put(request, fresh.clone()).catch(() => {})); // the disk may be full
  }
  return fresh.ok ? isolated(fresh) : fresh;
}

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(registration.scope)) {
    event.respondWith(answer(request, event));
  }
});
