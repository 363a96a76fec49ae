"""The examples of the README and of docs/ run: each page from top to bottom, in its own folder."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from clips import write_clip
from markdown_it import MarkdownIt
from PIL import Image
from shapely.geometry import box, mapping

import segrt
import segrt.geo
from segrt import cli, config, errors

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODELS = Path(segrt.__file__).parent / "models"


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: its language.
        text: its content.
        line: the line of the page where it begins.
        not_run: why it is not run; None if it is.
    """

    language: str
    text: str
    line: int
    not_run: str | None


def _blocks(page: Path) -> list[Block]:
    found, comment = [], None
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            comment = re.fullmatch(r"<!-- not run(.*?)-->\s*", token.content, re.DOTALL)
        elif token.type == "fence":
            assert token.map
            language = token.info.split()[0] if token.info.strip() else ""
            found.append(
                Block(
                    language,
                    token.content,
                    token.map[0] + 1,
                    comment[1].strip() if comment else None,
                )
            )
            comment = None
        elif token.nesting >= 0 and token.type not in ("inline", "paragraph_close"):
            comment = None
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files the pages use: photos, documents, a video, a converted model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "cache"))
    for name in ("SEGRT_MIRROR", "SEGRT_OFFLINE"):
        monkeypatch.setenv(name, "")
    road = Image.open(MODELS / "sample.png").resize((480, 360))
    road.save("road.png")
    Path("photos").mkdir()
    for file in ("photos/a.jpg", "photos/b.jpg"):
        road.save(file)
    road.save("scan.pdf", save_all=True, append_images=[road])
    write_clip(Path("clip.mp4"))
    _write_scene(road)
    Path("converted").mkdir()
    shutil.copyfile(MODELS / "PP-LiteSeg-T_camvid" / "model.onnx", "converted/my_model.onnx")
    return tmp_path


def _write_scene(picture: Image.Image) -> None:
    """A georeferenced scene, and an area in it."""
    import rasterio
    from rasterio.transform import from_origin

    width, height = picture.size
    options = {"crs": "EPSG:32633", "transform": from_origin(412_000, 5_655_000, 0.25, 0.25)}
    options |= {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open("scene.tif", "w", width=width, height=height, **options) as scene:
        scene.write(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    area = box(412_010, 5_654_920, 412_090, 5_654_990)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(area)}
    collection = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    Path("area.geojson").write_text(json.dumps(collection))


def _run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(command, comments=True)
    assert not {"serve", "--serve"} & set(arguments[1:]), "a server does not exit: mark the block"
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in _blocks(page):
        if block.not_run is not None:
            continue
        if block.language == "python":
            # Leading newlines: tracebacks then show the line of the page.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
        elif block.language in ("bash", "console", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if (command := line.removeprefix("$ ").strip()).startswith("segrt "):
                    _run(command, monkeypatch)
        elif block.language == "yaml":
            content = yaml.safe_load(block.text)
            if isinstance(content, dict) and content.keys() & {"pipeline_name", "SubModules"}:
                config.load(None, content)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_that_are_not_run_say_why(page: Path) -> None:
    for block in _blocks(page):
        assert block.language, f"{page.name}:{block.line}: the block has no language"
        if block.not_run is not None:
            assert re.fullmatch(r": \S.{4,}", block.not_run, re.DOTALL), (
                f"{page.name}:{block.line}: say why"
            )


def test_a_page_with_a_wrong_example_fails(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = here / "page.md"
    for text in ("```python\nassert 1 == 2\n```", "```bash\nsegrt predict gone.png\n```"):
        page.write_text(text)
        with pytest.raises(AssertionError):
            test_examples_run(page, here, monkeypatch)
    page.write_text("<!-- not run -->\n```python\n```")
    with pytest.raises(AssertionError, match="say why"):
        test_blocks_that_are_not_run_say_why(page)


def _links(text: str) -> list[str]:
    """The targets of all links and images."""
    tokens = [child for token in MarkdownIt().parse(text) for child in token.children or []]
    targets = [token.attrGet("href") or token.attrGet("src") for token in tokens]
    return [str(target) for target in targets if target]


def test_links_of_the_readme_exist() -> None:  # mkdocs --strict checks those of the other pages
    targets = _links((ROOT / "README.md").read_text("utf-8"))
    assert len(targets) > 10
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_documented_names_can_be_imported_from_segrt() -> None:
    text = "".join(page.read_text("utf-8") for page in sorted((ROOT / "docs/api").glob("*.md")))
    found = re.findall(r"^::: segrt\.([\w.]+)\.(\w+)$", text, re.MULTILINE)
    geo = {name for module, name in found if module.startswith("geo.")}
    names = {name for module, name in found if not module.startswith("geo.")}
    names |= {name for name, value in vars(errors).items() if isinstance(value, type)}
    for documented, package in ((names, segrt), (geo, segrt.geo)):
        assert documented == {name for name in package.__all__ if name != "__version__"}
        for name in documented:
            assert getattr(package, name).__name__ == name


def test_links_of_the_long_description_are_absolute() -> None:
    """PyPI shows the README without the repository: pyproject.toml makes its links absolute."""
    text = str(importlib.metadata.metadata("segrt").json["description"])
    targets = _links(text)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []
    for target in targets:
        path = re.fullmatch(r"https://[^/]+/segrt/segrt/(?:blob/)?v[0-9.]+/(.*)", target)
        assert path is None or (ROOT / path[1]).exists(), target
    assert "<img" not in text


def test_the_site_names_the_version() -> None:
    assert f"\ncopyright: segrt {segrt.__version__}," in (ROOT / "mkdocs.yml").read_text("utf-8")
