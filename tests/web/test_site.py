"""The page of `segrt web` in a headless Chromium: `make web-test`."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from web import static

import segrt
from segrt.web import site

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / ".npm/node_modules/onnxruntime-web"
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
MODEL = SAMPLE.parent / "PP-LiteSeg-T_camvid" / "model.onnx"
CAMVID = ROOT.parent / "shared/camvid_mini/images"
PHOTOS = int(os.environ.get("SEGRT_WEB_PHOTOS", "3"))

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(
        not (static.CHROMIUM and static.DRIVER), reason="chromium and chromedriver are missing"
    ),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="onnxruntime-web is missing: make web-test"),
]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[segrt.Pipeline]:
    with segrt.create_pipeline("semantic_segmentation", device="cpu") as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def folder(pipeline: segrt.Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with the photos and Python's labels next to it."""
    folder = tmp_path_factory.mktemp("web") / "site"
    description = pipeline.session.description
    site.build(MODEL, description, pipeline.palette, folder, runtime_folder=RUNTIME)
    extra = folder / "photos"
    extra.mkdir()
    for n, photo in enumerate(_photos()):
        rgb = np.asarray(photo)
        (extra / f"{n}.rgb").write_bytes(rgb.tobytes())
        (extra / f"{n}.labels").write_bytes(_labels(pipeline, rgb).tobytes())
        exif = Image.Exif()
        exif[0x0112] = (1, 3, 6, 8)[n % 4]  # orientation
        photo.save(extra / f"{n}.jpg", quality=90, exif=exif)
        (result,) = pipeline.predict(extra / f"{n}.jpg")
        (extra / f"{n}.jpg.labels").write_bytes(result.labels.astype(np.uint16).tobytes())
    return folder


def _labels(pipeline: segrt.Pipeline, rgb: Any) -> Any:
    (result,) = pipeline.predict(np.ascontiguousarray(rgb[:, :, ::-1]))
    return result.labels.astype(np.uint16)


def _photos() -> list[Image.Image]:
    if CAMVID.is_dir():
        return [Image.open(path).convert("RGB") for path in sorted(CAMVID.glob("*.png"))[:PHOTOS]]
    sample = Image.open(SAMPLE).convert("RGB")
    return [sample.crop((60 * n, 40 * n, 60 * n + 480, 40 * n + 360)) for n in range(PHOTOS)]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    with static.chromium(downloads) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with static.server(folder) as address:
        yield address


class Page(static.Page):
    """The actions of a user on the page."""

    def open(self, address: str, width: int = 1280, mobile: bool = False) -> None:
        self.size(width, mobile)
        touch = {"enabled": mobile, "maxTouchPoints": 1}
        self.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)
        self.browser.get(f"{address}/")
        self.until(lambda: self.text("error") or self.ready())

    def ready(self) -> bool:
        return bool(self.browser.execute_script("return document.body.dataset.ready"))

    def upload(self, path: Path) -> None:
        self.find("file").send_keys(str(path))
        self.until(lambda: self.text("status").startswith(f"{path.name}: ") or self.text("error"))

    def sample(self) -> None:
        if self.find("again").is_displayed():
            self.find("again").click()
        self.browser.find_element(By.CLASS_NAME, "example").click()
        self.until(lambda: "street.webp: 480 × 360" in self.text("status"))

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script that may wait; its value must be JSON."""
        return static.run(self.browser, script, *arguments)


@pytest.fixture
def page(browser: Any, address: str) -> Page:
    browser.get_log("browser")
    page = Page(browser)
    page.open(address)
    return page


LOAD = """
const { Segmenter } = await import("./segrt-web/index.js");
window.seg = await Segmenter.load("model.onnx", { runtime: "onnxruntime-web" });
"""

COMPARE = """
const { decode } = await import("./picture.js");
const read = async (name) => (await fetch(`photos/${name}`)).blob();
const count = async (image, name) => {
  const { labels } = await window.seg.segment(image);
  const wanted = new Uint16Array(await (await read(name)).arrayBuffer());
  const different = wanted.reduce((sum, label, i) => sum + (label !== labels[i]), 0);
  return [different, wanted.length];
};
const [n] = args;
const data = new Uint8Array(await (await read(`${n}.rgb`)).arrayBuffer());
return [
  await count({ data, width: 480, height: 360 }, `${n}.labels`),
  await count(await decode(await read(`${n}.jpg`), "photo"), `${n}.jpg.labels`),
];
"""


def test_labels_are_those_of_python(page: Page) -> None:
    page.run(LOAD)
    counts = np.array([page.run(COMPARE, n) for n in range(len(_photos()))])
    (pixels, total), (jpeg, _) = counts.sum(0)
    print(f"different labels: {pixels} of {total} from pixels, {jpeg} of {total} from JPEGs")
    assert pixels / total <= 1e-5
    assert jpeg / total <= 1e-3


def test_a_picture_is_shown_and_saved(
    page: Page, pipeline: segrt.Pipeline, downloads: Path, tmp_path: Path
) -> None:
    path = tmp_path / "street.png"
    Image.open(SAMPLE).crop((300, 240, 500, 390)).save(path)
    (result,) = pipeline.predict(path)
    page.upload(path)
    assert page.text("error") == ""
    assert "200 × 150 pixels" in page.text("status")
    assert "PP-LiteSeg-T_camvid" in page.text("info")
    rows = [
        row.text.replace("\xa0", " ").split("\n")
        for row in page.browser.find_elements(By.CSS_SELECTOR, "#legend .class")
    ]
    assert rows == [[name, f"{100 * share:.1f} %"] for name, share in result.areas().items()]
    page.find("save-labels").click()
    saved = downloads / "street_res.png"
    page.until(lambda: saved.exists() and saved.stat().st_size)
    labels = Image.open(io.BytesIO(saved.read_bytes()))
    assert labels.mode == "P"
    assert (np.asarray(labels) == result.labels).all()
    palette = np.array(labels.getpalette()).reshape(-1, 3)
    assert (palette[: len(result.palette)] == result.palette[: len(palette)]).all()
    # No error, and nothing blocked by the Content-Security-Policy.
    assert page.browser.get_log("browser") == []


@pytest.mark.parametrize("classes", [11, 300])
def test_label_pngs_are_encoded_exactly(page: Page, classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, classes, (31, 47))
    script = """const { encodeLabels } = await import("./png.js");
        const [labels, classes] = args;
        const palette = Array.from({length: classes}, (_, i) => [i & 255, 1, 2]);
        return [...(await encodeLabels(Uint16Array.from(labels), 47, 31, palette))];"""
    data = bytes(page.run(script, labels.ravel().tolist(), classes))
    assert (np.asarray(Image.open(io.BytesIO(data))) == labels).all()


def test_errors_are_one_sentence(page: Page, tmp_path: Path, folder: Path) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not a picture")
    page.upload(wrong)
    expected = "notes.txt is not a picture that this browser can read: choose a JPEG or PNG."
    assert page.find("error").text == expected
    for name, start, words in (
        ("scan.pdf", b"%PDF-1.4", "scan.pdf is a PDF, which this page can't read: save its pages"),
        ("map.tif", b"II*\0", "map.tif is a TIFF, which browsers can't read: save it as a PNG."),
    ):
        (tmp_path / name).write_bytes(start)
        page.upload(tmp_path / name)
        assert page.find("error").text.startswith(words)
    huge = tmp_path / "huge.png"
    Image.new("1", (20_000, 10_000)).save(huge)
    page.upload(huge)
    assert page.find("error").text == (
        "huge.png is too large: it has 20000 × 10000 pixels (200 megapixels), and 64 megapixels is "
        "the limit."
    )
    bare = site.with_metadata(MODEL.read_bytes(), "{")
    for name, content, words in (
        ("photo.onnx", SAMPLE.read_bytes(), "not an ONNX model"),
        ("damaged.onnx", bare, "metadata of this model is damaged"),
        ("truncated.onnx", MODEL.read_bytes()[:-1000], "not an ONNX model"),
    ):
        (folder / "photos" / name).write_bytes(content)
        script = """const { Segmenter } = await import("./segrt-web/index.js");
            return Segmenter.load(args[0], { runtime: "onnxruntime-web" })
                .then(() => "", (e) => `${e.name}: ${e.message}`);"""
        message = page.run(script, f"photos/{name}")
        assert message.startswith("SegrtError: ")
        assert words in message
    page.upload(SAMPLE)
    assert page.text("error") == ""


def test_no_request_leaves_the_host(page: Page, address: str) -> None:
    page.browser.get_log("performance")
    page.open(address)
    page.sample()
    events = [
        json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")
    ]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert f"{address}/app.js" in urls
    assert {urlsplit(url).netloc for url in urls if not url.startswith("blob:")} == {
        urlsplit(address).netloc
    }


@pytest.mark.skipif(not static.AXE.is_file(), reason="axe-core is missing: make web-test")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_bars_anyone(page: Page, address: str, theme: str) -> None:
    page.theme(theme)
    found = []
    for width in (1280, 400):
        page.open(address, width)
        found += page.barriers()
        page.sample()
        found += page.barriers()
    page.theme("light")
    assert found == []


def test_the_main_thread_stays_free(page: Page) -> None:
    """No task of the page takes 50 ms while the network runs: else the browser reports it."""
    page.run("""window.tasks = [];
        new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration)))
            .observe({ type: "longtask" });""")
    page.sample()
    time.sleep(0.5)
    tasks = page.browser.execute_script("return window.tasks")
    print("long tasks in ms:", tasks)
    assert max(tasks, default=0) < float(os.environ.get("SEGRT_WEB_LONGEST_TASK", "200"))


def test_the_camera_is_segmented_until_it_is_stopped(page: Page) -> None:
    page.find("camera").click()
    page.until(lambda: page.text("status").startswith("Camera: 640 × 480"))
    assert page.find("camera").text == "Stop the camera"
    page.find("camera").click()
    assert page.find("camera").text == "Camera"
    assert page.text("error") == ""


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (400, True)])
def test_no_horizontal_scroll(page: Page, address: str, width: int, mobile: bool) -> None:
    page.open(address, width, mobile=mobile)
    scroll = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.browser.execute_script(scroll) == 0
    _keep(page, f"start-{width}")
    page.sample()
    assert page.browser.execute_script(scroll) == 0
    assert page.browser.execute_script("return innerWidth") == width
    _keep(page, f"result-{width}")


def _keep(page: Page, name: str) -> None:
    if folder := os.environ.get("SEGRT_WEB_SCREENSHOTS"):
        page.browser.save_screenshot(f"{folder}/{name}.png")


def test_the_page_works_without_a_network(folder: Path, tmp_path: Path) -> None:
    """After one visit, with the server gone; the page is then isolated, and uses threads."""
    with static.chromium(tmp_path) as browser:
        page = Page(browser)
        with static.server(folder) as address:
            page.open(address)
            assert page.text("error") == ""
            script = (folder / "sw.js").read_text()
            listed, _ = json.JSONDecoder().raw_decode(script.split("const SITE = ")[1])
            kept = """const cache = await caches.open((await caches.keys())[0]);
                return (await cache.keys()).length;"""
            page.until(lambda: page.run(kept) >= len(listed["files"]) + len(listed["large"]))
        page.open(address)
        assert page.text("error") == ""
        assert browser.execute_script("return crossOriginIsolated") is True
        assert "threads" in page.text("info")
        page.sample()
        assert page.text("error") == ""


def test_the_page_can_be_installed(page: Page) -> None:
    found = page.browser.execute_cdp_cmd("Page.getAppManifest", {})
    assert found["errors"] == []
    assert json.loads(found["data"])["name"] == "segrt: PP-LiteSeg-T_camvid"
    errors = page.browser.execute_cdp_cmd("Page.getInstallabilityErrors", {})
    assert errors["installabilityErrors"] == []


def test_a_page_opened_as_a_file_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with static.chromium(tmp_path) as browser:
        page = Page(browser)
        browser.get((folder / "index.html").as_uri())
        page.until(lambda: page.text("error"))
        assert "python3 -m http.server" in page.text("error")


def test_the_build_is_whole_or_not_at_all(pipeline: segrt.Pipeline, tmp_path: Path) -> None:
    target = tmp_path / "site"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    description = pipeline.session.description
    with pytest.raises(segrt.SegrtError, match="exists and is not empty"):
        site.build(MODEL, description, pipeline.palette, target, runtime_folder=RUNTIME)
    shutil.rmtree(target)
    with pytest.raises(segrt.SegrtError, match="is not the npm package"):
        site.build(MODEL, description, pipeline.palette, target, runtime_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
