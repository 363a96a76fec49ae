"""The static page of `segrt web`: all of its files, written at once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import files as installed_files
from importlib.resources import files as resources
from pathlib import Path
from urllib.parse import quote

import numpy as np

from segrt import external_data, package_data
from segrt.description import Description
from segrt.errors import ConfigError, ModelError
from segrt.metadata import KEY
from segrt.palette import Palette
from segrt.protobuf import field, fields
from segrt.web import runtime

INTERPOLATIONS = ("NEAREST", "LINEAR", "PILLOW_NEAREST")
"""The interpolations that segrt-web computes exactly, as in packages/web/src/preprocess.js."""

MODULE = "web/module"
"""Folder of segrt-web in the package; in a source checkout it is packages/web/src."""

_METADATA = 14  # of ModelProto, in onnx.proto
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # of StringStringEntryProto


def build(
    file: Path,
    description: Description,
    palette: Palette,
    target: Path,
    *,
    runtime_folder: Path | None = None,
    webgpu: bool = False,
) -> int:
    """Write a page that runs a model in the browser, without a server's help.

    Example:
        >>> session = pipeline.session
        >>> build(Path("roads.onnx"), session.description, pipeline.palette, Path("site"))
        32345678

    Args:
        file: the `.onnx` file.
        description: what is known of the model.
        palette: the colour of each class.
        target: the folder to create.
        runtime_folder: the unpacked npm package onnxruntime-web; None to download it on first use.
        webgpu: whether the page uses WebGPU in browsers that have it; 27 MB more.

    Returns:
        int: the bytes of all files.

    Raises:
        ConfigError: the folder exists and is not empty, or `runtime_folder` is not that package.
        DownloadError: onnxruntime-web can't be downloaded.
        ModelError: the model can't run in browsers exactly as here.
        OSError: the folder can't be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty: delete it, or name another folder")
    check(file, description)
    content = dict(_files(file, description, palette, runtime_folder, webgpu))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".segrt-web-", dir=target.parent) as made:
        top = Path(made, "site")
        for name, data in content.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target.is_dir():
            target.rmdir()
        os.replace(top, target)
    return sum(map(len, content.values()))


def check(file: Path, description: Description) -> None:
    """Refuse a model that segrt-web would refuse when it is loaded.

    Example:
        >>> check(Path("model.onnx"), pipeline.session.description)

    Raises:
        ModelError: the model can't run in browsers exactly as here.
    """
    node = description.input
    refusal = f"{file} can't run in a browser exactly as here: "
    with file.open("rb") as opened:
        if any(external_data.locations(memoryview(opened.read()))):
            raise ModelError(f"{refusal}it keeps its weights in another file; save it as one file")
    description.check_pictures("it can't run on a page")
    if (
        node.dtype not in (np.float32, np.uint8)
        or node.channels_last
        or node.dims[0] not in (None, 1)
    ):
        raise ModelError(
            f"{refusal}its input must be 1 x C x H x W of float32 or uint8, and it is "
            f"{description.values()['input'][0]}"
        )
    if description.output.channels_last:
        raise ModelError(f"{refusal}its output must be N x C x h x w")
    for step in description.transforms.steps:
        if (interp := getattr(step, "interp", None)) not in (None, *INTERPOLATIONS):
            raise ModelError(
                f"{refusal}it resizes images by {interp}, and segrt-web has "
                f"{', '.join(INTERPOLATIONS)}"
            )


def _files(
    file: Path, description: Description, palette: Palette, folder: Path | None, webgpu: bool
) -> Iterator[tuple[str, bytes]]:
    """Each file of the page, by its path."""
    providers = ("webgpu", "wasm") if webgpu else ("wasm",)
    content = {
        **{name.rpartition("/")[2]: _package_file(name) for name in _page_names()},
        **{f"segrt-web/{name}": data for name, data in _module().items()},
        "model.onnx": with_metadata(file.read_bytes(), _metadata(description, palette)),
        "manifest.webmanifest": _manifest(description.meta.name),
        **dict(_licences(file)),
    }
    code = runtime.read([name for p in providers for name in runtime.FILES[p]], folder)
    content |= {f"onnxruntime-web/{name}": data for name, data in code.items()}
    large = [name for name in content if name.endswith((".onnx", ".wasm"))]
    # WebGPU's glue is not needed by each browser, so it is kept when it is used.
    large += [name for name in content if name.startswith("onnxruntime-web/") and name not in large]
    size = {p: len(code[runtime.FILES[p][2]]) for p in providers}
    content["site.json"] = _json(
        {"providers": providers, "bytes": {"model": len(content["model.onnx"]), **size}}
    )
    script = content.pop("sw.js").decode()
    small = [quote(name) for name in content if name not in large]
    digest = hashlib.sha256()
    for name, data in sorted(content.items()):
        digest.update(name.encode() + hashlib.sha256(data).digest())
    digest.update(script.encode())
    site = {"version": digest.hexdigest()[:16], "files": ["./", *small], "large": large}
    marker = "const SITE = null;"
    assert marker in script
    content["sw.js"] = script.replace(marker, f"const SITE = {json.dumps(site)};").encode()
    yield from content.items()


def _page_names() -> list[str]:
    return [f"{page}/{name}" for page in ("page", "web/page") for name in package_data.names(page)]


def _package_file(name: str) -> bytes:
    return package_data.path(name).read_bytes()


def _module() -> dict[str, bytes]:
    try:
        names = package_data.names(MODULE)
    except FileNotFoundError:  # in a source checkout
        folder = Path(__file__).parents[3] / "packages" / "web" / "src"
        return {path.name: path.read_bytes() for path in sorted(folder.glob("*.js"))}
    return {n: _package_file(f"{MODULE}/{n}") for n in names if n.endswith(".js")}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def _manifest(model: str) -> bytes:
    icons = [
        {"src": f"icon-{n}.png", "sizes": f"{n}x{n}", "type": "image/png", "purpose": purpose}
        for n in (192, 512)
        for purpose in ("any", "maskable")
    ]
    return _json(
        {
            "id": "./",
            "name": f"segrt: {model}",
            "short_name": "segrt",
            "description": "Segment pictures in the browser: nothing is uploaded.",
            "start_url": "./",
            "scope": "./",
            "display": "standalone",
            "background_color": "#f6f5f1",
            "theme_color": "#1f5c4d",
            "icons": icons,
        }
    )


def _licences(file: Path) -> Iterator[tuple[str, bytes]]:
    """The licences of segrt, of ONNX Runtime and of the model, where there are such files."""
    found: dict[str, bytes] = {}
    for part in installed_files("segrt") or ():
        if part.name == "LICENSE" and len(part.parts) == 3:
            found["segrt.txt"] = Path(str(part.locate())).read_bytes()
    package = resources("onnxruntime")
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        if (source := package / name).is_file():
            found[f"onnxruntime-{Path(name).stem}.txt"] = source.read_bytes()
    for path in sorted(file.parent.glob("LICEN[SC]E*")):
        found[f"model-{path.stem}.txt"] = path.read_bytes()
    lines = ["Licences of what this page contains:", "", *(f"  {name}" for name in found)]
    found["index.txt"] = "\n".join([*lines, ""]).encode()
    for name, data in found.items():
        yield f"licences/{name}", data


def _metadata(description: Description, palette: Palette) -> str:
    """The metadata with all that is known of the model, whatever its source was."""
    meta = description.meta
    colours = tuple(tuple(map(int, colour)) for colour in palette[: len(meta.class_names)])
    return meta.model_copy(update={"palette": colours}).model_dump_json(exclude_defaults=True)


def with_metadata(model: bytes, text: str) -> bytes:
    """An `.onnx` file with other metadata of segrt; everything else stays as it is.

    Example:
        >>> model = with_metadata(Path("model.onnx").read_bytes(), meta.model_dump_json())
    """
    kept = []
    for number, whole, value in fields(memoryview(model)):
        if number == _METADATA:
            key = next((bytes(v) for n, _, v in fields(value) if n == _ENTRY_KEY), b"")
            if key == KEY.encode():
                continue
        kept.append(whole)
    entry = field(_ENTRY_KEY, KEY.encode()) + field(_ENTRY_VALUE, text.encode())
    return b"".join([*kept, field(_METADATA, entry)])
