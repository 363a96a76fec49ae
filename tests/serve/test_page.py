"""The page in a headless Chromium, at a live server: `make browser-test`."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import live
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from web import static

import segrt

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (static.CHROMIUM and static.DRIVER),
        reason="chromium and chromedriver are not installed",
    ),
]
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
Labels = npt.NDArray[np.int32]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live.server() as address:
        yield address


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    with static.chromium(downloads) as browser:
        yield browser


class Page(static.Page):
    """The actions of a user on the page."""

    def open(self, address: str, width: int = 1280) -> None:
        self.size(width)
        self.browser.get(f"{address}/")
        self.until(
            lambda: self.text("info") or self.browser.find_elements(By.CSS_SELECTOR, "dialog[open]")
        )

    def upload(self, path: Path) -> None:
        self.find("file").send_keys(str(path))
        self.until(lambda: f"{path.name}: " in self.text("status") or self.text("error"))

    def example(self, name: str) -> None:
        if self.find("again").is_displayed():
            self.find("again").click()
        picture = self.browser.find_element(By.CSS_SELECTOR, f'[src="example-{name}.webp"]')
        picture.click()
        self.until(lambda: f"{name}.webp: " in self.text("status") or self.text("error"))

    def docs(self, address: str, width: int = 1280) -> None:
        self.size(width)
        self.browser.get(f"{address}/docs")
        self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, "form + div"))

    def send(self, number: int) -> tuple[str, str]:
        """Send a form of the API page; its status, and the body of the response."""
        form = self.browser.find_elements(By.TAG_NAME, "form")[number]
        answer = form.find_element(By.XPATH, "following-sibling::div")
        script = "arguments[0].requestSubmit()"
        self.browser.execute_script(script, form)
        status = answer.find_element(By.CLASS_NAME, "answer-status")
        self.until(lambda: status.text and "Waiting" not in status.text)
        return status.text, answer.find_elements(By.TAG_NAME, "pre")[1].text

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The canvas: uint8 (H, W, 4), RGBA."""
        script = """const c = document.getElementById("canvas");
            const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            return [c.height, c.width, ...pixels];"""
        height, width, *values = self.browser.execute_script(script)
        return np.array(values, np.uint8).reshape(height, width, 4)

    def slide(self, percent: int, slider: str = "opacity") -> None:
        script = (
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'));"
        )
        self.browser.execute_script(script, self.find(slider), percent)

    def file(self, button: str, path: Path) -> bytes:
        path.unlink(missing_ok=True)
        self.find(button).click()
        self.until(lambda: path.exists() and path.stat().st_size)
        return path.read_bytes()


@pytest.fixture
def page(browser: Any, address: str) -> Page:
    browser.get_log("browser")
    page = Page(browser)
    page.open(address)
    return page


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    with Image.open(SAMPLE) as sample:
        sample.crop((300, 240, 500, 390)).save(path)
    return path


@pytest.fixture(scope="module")
def result(picture: Path) -> segrt.SegResult:
    """The result of the library for the same picture."""
    (result,) = segrt.create_pipeline("semantic_segmentation", device="cpu").predict(picture)
    assert isinstance(result, segrt.SegResult)
    return result


def test_the_result_is_shown(page: Page, picture: Path, result: segrt.SegResult) -> None:
    page.upload(picture)
    assert page.text("error") == ""
    assert "200 × 150 pixels" in page.text("status")
    assert "PP-LiteSeg-T_camvid" in page.text("info")
    assert "CPU fp32" in page.text("info")
    rows = [
        row.text.replace("\xa0", " ").split("\n")
        for row in page.browser.find_elements(By.CSS_SELECTOR, "#legend .class")
    ]
    assert rows == [[name, f"{100 * share:.1f} %"] for name, share in result.areas().items()]
    # No error, and nothing blocked by the Content-Security-Policy.
    assert page.browser.get_log("browser") == []


def test_the_slider_blends_photo_and_classes(
    page: Page, picture: Path, result: segrt.SegResult
) -> None:
    page.upload(picture)
    photo, coloured = (
        result.image[:, :, ::-1].astype(int),
        result.palette[result.labels].astype(int),
    )
    for percent in (0, 30, 100):
        page.slide(percent)
        mixed = photo + (coloured - photo) * percent / 100
        assert np.abs(page.pixels()[:, :, :3] - mixed).max() < 4  # the browser blends with 8 bits
        assert page.text("percent") == f"{percent} %"


def test_a_class_is_hidden_and_shown_again(
    page: Page, picture: Path, result: segrt.SegResult
) -> None:
    page.upload(picture)
    page.slide(100)
    before = page.pixels()
    first = page.browser.find_element(By.CSS_SELECTOR, "#legend .class")
    hidden = result.labels == int(first.get_attribute("data-id"))
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    after = page.pixels()
    assert (after[hidden][:, :3] == result.image[hidden][:, ::-1]).all()
    assert (after[~hidden] == before[~hidden]).all()
    first.click()
    assert (page.pixels() == before).all()


def test_a_class_is_shown_alone_and_all_are_again(
    page: Page, picture: Path, result: segrt.SegResult
) -> None:
    page.upload(picture)
    page.slide(100)
    before = page.pixels()
    alone = page.browser.find_element(By.CSS_SELECTOR, "#legend .only")
    kept = result.labels == int(alone.get_attribute("data-id"))
    alone.click()
    assert alone.get_attribute("aria-pressed") == "true"
    after = page.pixels()
    assert (after[~kept][:, :3] == result.image[~kept][:, ::-1]).all()
    assert (after[kept] == before[kept]).all()
    alone.click()
    assert (page.pixels() == before).all()


def test_a_part_of_the_photo_has_no_classes(
    page: Page, picture: Path, result: segrt.SegResult
) -> None:
    page.upload(picture)
    page.slide(100)
    page.slide(25, "split")
    pixels = page.pixels()[:, :, :3]
    assert (pixels[:, :50] == result.image[:, :50, ::-1]).all()
    assert (pixels[:, 50:] == result.palette[result.labels[:, 50:]]).all()
    assert page.text("part") == "25 %"


def test_several_pictures(page: Page, picture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    with Image.open(picture) as opened:
        opened.crop((0, 0, 100, 90)).save(other)
    page.find("file").send_keys(f"{picture}\n{other}")
    page.until(lambda: "street.png: 200 × 150" in page.text("status"))
    assert "1 of 2" in page.text("several")
    page.browser.find_elements(By.CSS_SELECTOR, "#several button")[1].click()
    page.until(lambda: "other.png: 100 × 90" in page.text("status"))
    assert "2 of 2" in page.text("several")
    page.upload(picture)
    assert not page.find("several").is_displayed()


def test_the_theme_button_stays_as_it_was(page: Page, address: str) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    for name, colour in (("Light colours", "rgb(246, 245, 241)"), ("Dark", "rgb(20, 25, 26)")):
        page.find("theme").click()
        assert name in page.text("theme")
        assert page.browser.execute_script(ground) == colour
    page.open(address)
    assert page.browser.execute_script(ground) == "rgb(20, 25, 26)"
    page.find("theme").click()
    assert page.text("theme") == "System colours"


def test_the_call_as_code_runs(page: Page, picture: Path, tmp_path: Path) -> None:
    page.upload(picture)
    page.browser.find_element(By.CSS_SELECTOR, "details summary").click()
    shutil.copy(picture, tmp_path / picture.name)
    command = page.text("curl")
    assert command.startswith("curl ")
    program = tmp_path / "call.py"
    program.write_text(page.text("python"))
    calls: tuple[list[str], ...] = [sys.executable, str(program)], ["bash", "-c", command]
    for call in calls:
        done = subprocess.run(
            call, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert "Road" in done.stdout


def test_the_class_under_the_pointer_is_shown(
    page: Page, picture: Path, result: segrt.SegResult
) -> None:
    page.upload(picture)
    canvas = page.find("canvas")
    shown = canvas.size["width"], canvas.size["height"]
    classes = set()
    for x, y in ((10, 10), (100, 140), (150, 60), (190, 140), (60, 75)):
        left = (x + 0.5) * shown[0] / 200 - shown[0] / 2
        top = (y + 0.5) * shown[1] / 150 - shown[1] / 2
        ActionChains(page.browser).move_to_element_with_offset(
            canvas, math.floor(left), math.floor(top)
        ).perform()
        found = re.match(r"(.+) column (\d+), row (\d+),", page.text("reading"))
        assert found
        name, column, row = found[1], int(found[2]), int(found[3])
        # The pointer is at a whole pixel of the screen.
        assert max(abs(column - 1 - x), abs(row - 1 - y)) <= 1
        assert name == result.class_names[result.labels[row - 1, column - 1]]
        classes.add(name)
    assert len(classes) > 1
    assert page.text("spoken") == ""  # pointer movements are not announced


def test_the_keyboard_moves_the_probe(page: Page, picture: Path, result: segrt.SegResult) -> None:
    page.upload(picture)
    view = page.find("view")
    view.send_keys(Keys.ARROW_UP)  # from the middle, a hundredth of the longer side
    assert (
        page.text("spoken") == f"{result.class_names[result.labels[73, 100]]}, column 101, row 74"
    )
    view.send_keys(Keys.SHIFT, Keys.ARROW_LEFT)
    assert page.text("spoken") == f"{result.class_names[result.labels[73, 80]]}, column 81, row 74"
    for _ in range(12):
        view.send_keys(Keys.SHIFT, Keys.ARROW_LEFT)
    assert "column 1, row 74" in page.text("spoken")


def test_downloads(page: Page, picture: Path, result: segrt.SegResult, downloads: Path) -> None:
    page.upload(picture)
    page.slide(40)
    labels = Image.open(io.BytesIO(page.file("save-labels", downloads / "street_res.png")))
    assert labels.mode == "P"
    assert (np.asarray(labels) == result.labels).all()
    overlay = Image.open(io.BytesIO(page.file("save-overlay", downloads / "street_overlay.png")))
    assert (np.asarray(overlay) == page.pixels()).all()
    answer = json.loads(page.file("save-json", downloads / "street_res.json"))
    assert answer["result"]["size"] == [150, 200]
    assert {one["name"]: one["share"] for one in answer["result"]["classes"]} == pytest.approx(
        result.areas()
    )


@pytest.mark.parametrize("width", [1280, 400])
def test_an_example_without_horizontal_scroll(page: Page, address: str, width: int) -> None:
    page.open(address, width)
    scroll = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.browser.execute_script(scroll) == 0
    page.example("street")
    page.browser.find_element(By.CSS_SELECTOR, "details summary").click()
    assert page.browser.execute_script(scroll) == 0
    assert page.browser.execute_script("return innerWidth") == width


def test_no_request_leaves_the_host(page: Page, address: str, picture: Path) -> None:
    page.browser.get_log("performance")
    page.open(address)
    page.upload(picture)
    page.example("street")
    events = [
        json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")
    ]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert f"{address}/semantic-segmentation?labelFormat=png&visualize=false&page=0" in urls
    assert {urlsplit(url).netloc for url in urls} == {urlsplit(address).netloc}


def test_errors_are_the_messages_of_the_server(page: Page, picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    page.upload(broken)
    assert page.find("error").text == "broken.png: This is not an image of a known format."
    assert page.find("error").get_attribute("role") == "alert"
    page.upload(picture)
    assert page.text("error") == ""
    letter = tmp_path / "letter.txt"  # the result before does not stay beside the error
    letter.write_text("Dear reader")
    page.upload(letter)
    assert page.find("error").text == "letter.txt: This is not an image of a known format."
    assert not page.find("stage").is_displayed()
    assert not page.find("side").is_displayed()


def test_a_tiff_is_shown_as_the_server_decodes_it(
    page: Page, picture: Path, result: segrt.SegResult, tmp_path: Path
) -> None:
    path = tmp_path / "street.tif"
    Image.open(picture).save(path)
    page.upload(path)
    page.slide(0)
    shown = page.pixels()[:, :, :3].astype(int)
    assert np.abs(shown - result.image[:, :, ::-1]).mean() < 6  # a JPEG
    page.slide(100)
    assert (page.pixels()[:, :, :3] == result.palette[result.labels]).all()


def test_the_pages_of_a_pdf(page: Page, picture: Path, tmp_path: Path, downloads: Path) -> None:
    path = tmp_path / "scan.pdf"
    with Image.open(picture) as first, Image.new("RGB", (90, 60), "white") as second:
        first.convert("RGB").save(path, save_all=True, append_images=[second], resolution=144)
    page.find("file").send_keys(str(path))
    page.until(lambda: "scan.pdf, page 1 of 2: 200 × 150" in page.text("status"))
    assert "Page 1 of 2" in page.text("pages")
    page.slide(0)
    assert page.pixels()[:, :, :3].std() > 20  # the page is shown, not only its classes
    page.browser.find_element(By.CSS_SELECTOR, "[aria-label='Next page']").click()
    page.until(lambda: "scan.pdf, page 2 of 2: 90 × 60" in page.text("status"))
    assert (page.pixels()[:, :, :3] > 250).all()
    assert "&page=1" in page.text("curl")
    labels = Image.open(io.BytesIO(page.file("save-labels", downloads / "scan_1_res.png")))
    assert labels.size == (90, 60)
    page.browser.find_element(By.CSS_SELECTOR, "[aria-label='Next page']").click()
    page.until(lambda: "scan.pdf, page 1 of 2: " in page.text("status"))
    page.upload(picture)
    assert not page.find("pages").is_displayed()
    assert "page=" not in page.text("curl")


def test_outlines_are_those_of_overlays(page: Page, picture: Path, result: segrt.SegResult) -> None:
    page.upload(picture)
    page.slide(50)
    without = page.pixels()
    page.find("outlines").click()
    expected = np.asarray(result.overlay(alpha=0.5, legend=False, outlines=True)).astype(int)
    assert np.abs(page.pixels()[:, :, :3] - expected).max() < 5
    page.browser.find_element(By.CSS_SELECTOR, "#legend .only").click()
    alone = int(
        page.browser.find_element(By.CSS_SELECTOR, "#legend .class").get_attribute("data-id")
    )
    inside = np.asarray(Image.fromarray(result.labels == alone))
    far = ~np.asarray(inside | np.roll(inside, 1, 0) | np.roll(inside, 1, 1))
    photo = result.image[:, :, ::-1].astype(int)
    assert (page.pixels()[far][:, :3] == photo[far]).all()  # no lines between hidden classes
    page.browser.find_element(By.CSS_SELECTOR, "#legend .only").click()
    page.find("outlines").click()
    assert (page.pixels() == without).all()


def test_examples_suit_the_model(page: Page, address: str) -> None:
    titles = [one.text for one in page.browser.find_elements(By.CLASS_NAME, "example")]
    assert titles == ["Street", "Avenue", "Evening"]
    page.example("avenue")
    assert "avenue.webp: 480 × 360 pixels" in page.text("status")
    assert not page.find("examples").is_displayed()
    page.find("again").click()
    assert page.find("examples").is_displayed()
    assert page.text("status") == ""
    script = """const done = arguments[arguments.length - 1];
        import("/viewer.js").then((m) => {
            m.offerExamples(arguments[0], () => {});
            done([...document.querySelectorAll(".example")].map((one) => one.textContent));
        });"""
    for classes, expected in (
        (["wall", "building", "sofa", "rug"], ["Living room"]),
        (["Background", "Person"], ["Portrait"]),
        (["background", "nucleus"], ["Cells"]),
        (["scratch", "dent"], ["Street", "Avenue", "Evening", "Living room", "Portrait"]),
    ):
        found = page.browser.execute_async_script(script, classes)
        assert found[: len(expected)] == expected
        assert len(found) == (len(expected) if len(expected) < 5 else 7)


def test_the_page_is_light(page: Page, address: str) -> None:
    """Less than 150 kB without pictures, and pictures only as they come into view."""
    page.open(address)
    script = """return performance.getEntriesByType("resource").concat(
        performance.getEntriesByType("navigation")).map((e) => [e.name, e.decodedBodySize]);"""
    sizes = dict(page.browser.execute_script(script))
    code = sum(size for name, size in sizes.items() if not name.endswith(".webp"))
    assert 10_000 < code < 150_000, sizes
    assert all(
        one.get_property("loading") == "lazy"
        for one in page.browser.find_elements(By.CSS_SELECTOR, ".example img")
    )
    folder = Path(segrt.__file__).with_name("page")
    assert sum(path.stat().st_size for path in folder.glob("*.webp")) < 150_000


@pytest.mark.parametrize("classes", [2, 4, 11, 256, 1000])
def test_label_pngs_are_decoded_exactly(page: Page, classes: int) -> None:
    """With 1, 2, 4, 8 and 16 bits per pixel, and with all row filters of Pillow."""
    smooth = np.add.outer(np.arange(61), np.arange(47)) % classes
    noise = np.random.default_rng(0).integers(0, classes, (61, 47))
    for labels in (smooth, noise):
        picture = Image.fromarray(labels.astype(np.uint16 if classes > 256 else np.uint8))
        if classes <= 256:
            picture.putpalette(bytes(3 * classes))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        script = """const [bytes, done] = arguments;
            import("/png.js").then((m) => m.decodeLabels(new Uint8Array(bytes)))
                .then((r) => done([r.height, r.width, ...r.labels]), (e) => done(String(e)));"""
        height, width, *values = page.browser.execute_async_script(script, list(buffer.getvalue()))
        assert (height, width) == (61, 47)
        assert (np.reshape(values, (61, 47)) == labels).all()


def test_the_page_asks_for_the_token(page: Page, picture: Path) -> None:
    with live.server("--token", "open sesame", "--public-page") as address:
        page.open(address)
        page.find("token").send_keys("wrong", Keys.ENTER)
        page.until(
            lambda: (
                page.find("token").get_property("value") == "" and page.find("token").is_displayed()
            )
        )
        page.find("token").send_keys("open sesame", Keys.ENTER)
        page.until(lambda: page.text("info"))
        page.upload(picture)
        assert "200 × 150 pixels" in page.text("status")
        page.open(address)
        page.find("login-cancel").click()
        page.until(lambda: page.text("error"))
        assert "token" in page.text("error")


@pytest.mark.skipif(not static.AXE.is_file(), reason="axe-core is missing: make browser-test")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_bars_anyone(
    page: Page, address: str, picture: Path, tmp_path: Path, width: int, theme: str
) -> None:
    page.theme(theme)
    page.open(address, width)
    found = {"start": page.barriers()}
    document = tmp_path / "scan.pdf"
    with Image.open(picture) as first:
        first.convert("RGB").save(document, save_all=True, append_images=[Image.new("L", (9, 9))])
    page.find("file").send_keys(str(document))
    page.until(lambda: "page 1 of 2" in page.text("status"))
    page.browser.find_element(By.CSS_SELECTOR, "details summary").click()
    page.browser.find_element(By.CSS_SELECTOR, "#legend .only").click()
    found["result"] = page.barriers()
    (tmp_path / "broken.png").write_text("not a picture")
    page.upload(tmp_path / "broken.png")
    found["error"] = page.barriers()
    page.docs(address)
    found["API"] = page.barriers()
    page.send(0)
    page.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = 1")
    found["response"] = page.barriers()
    page.theme("light")
    assert {state: one for state, one in found.items() if one} == {}


BODIES = ("application/octet-stream", "multipart/form-data", "application/json")


@pytest.mark.parametrize("media", BODIES)
def test_the_api_page_sends_what_its_form_says(
    page: Page, address: str, picture: Path, result: segrt.SegResult, tmp_path: Path, media: str
) -> None:
    page.docs(address)
    form = page.browser.find_element(By.TAG_NAME, "form")
    Select(form.find_element(By.NAME, "media")).select_by_visible_text(media)
    fields = form.find_element(By.CSS_SELECTOR, f'[data-media="{media}"]')
    assert [one.is_displayed() for one in form.find_elements(By.TAG_NAME, "fieldset")].count(
        True
    ) == 1
    fields.find_element(By.CSS_SELECTOR, "[type=file]").send_keys(str(picture))
    for name, value in (("labelFormat", "png"), ("visualize", "false"), ("inputImage", "true")):
        Select(fields.find_element(By.NAME, name)).select_by_visible_text(value)
    fields.find_element(By.NAME, "page").send_keys("0")
    command = page.browser.find_element(By.CSS_SELECTOR, "form + div pre").text
    status, body = page.send(0)
    assert status.startswith("200 OK, ")
    assert '"pages": 1' in body
    assert '"size": [ 150, 200 ]' in body
    assert "characters)" in body
    captions = [one.text for one in page.browser.find_elements(By.TAG_NAME, "figcaption")]
    assert captions == ["result.labelMap", "result.inputImage"]
    shutil.copy(picture, tmp_path / picture.name)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)["result"]
    labels = Image.open(io.BytesIO(base64.b64decode(answer["labelMap"])))
    assert (np.asarray(labels) == result.labels).all()
    assert answer["pages"] == 1


def test_the_api_page_works_at_once_and_shows_errors(page: Page, address: str) -> None:
    """Without a file, an example is sent; all other calls have nothing to fill in."""
    page.browser.get_log("browser")
    page.docs(address)
    assert "`" not in page.browser.find_element(By.TAG_NAME, "body").get_attribute("textContent")
    forms = page.browser.find_elements(By.TAG_NAME, "form")
    answers = [page.send(number) for number in range(len(forms))]
    assert all(status.startswith("200 OK, ") for status, _ in answers), answers
    assert '"size": [ 360, 480 ]' in answers[0][1]
    assert any("segrt_requests_total" in body for _, body in answers)
    assert page.browser.get_log("browser") == []  # nothing is blocked, nothing failed
    forms[0].find_element(By.NAME, "targetSize").send_keys("huge")
    status, body = page.send(0)
    assert status.startswith("422 ")
    assert "'targetSize' is not valid" in body


def test_the_keyboard_sends_a_form(page: Page, address: str) -> None:
    page.docs(address)
    media = page.browser.find_element(By.NAME, "media")
    page.browser.execute_script("arguments[0].focus()", media)
    sizes = page.browser.find_element(By.NAME, "targetSize")
    ActionChains(page.browser).send_keys(Keys.TAB, Keys.TAB, "256", Keys.ENTER).perform()
    assert sizes.get_property("value") == "256"
    status = page.browser.find_element(By.CLASS_NAME, "answer-status")
    page.until(lambda: status.text.startswith("200"))
    assert status.get_attribute("role") == "status"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_api_page_without_horizontal_scroll(page: Page, address: str, width: int) -> None:
    page.docs(address, width)
    page.send(0)
    page.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = 1")
    scroll = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.browser.execute_script(scroll) == 0
