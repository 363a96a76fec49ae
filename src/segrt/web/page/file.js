/* Browsers run no modules, workers or service workers of a page that was opened as a file. */
if (location.protocol === "file:") {
  document.getElementById("loading").hidden = true;
  document.getElementById("error").textContent =
    "Browsers don't run this page from a file: run  python3 -m http.server  in its folder, and " +
    "open http://localhost:8000.";
}
