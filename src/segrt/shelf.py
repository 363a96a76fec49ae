"""Shelves: folders of converted models, which are converted once and run anywhere.

    index.json                              SHA-256, size and origin of each file
    onnx/<name>/model.onnx                  the model
    onnx/<name>/model.parity.json           how it compares with the original
    onnx/<name>/LICENCE.txt                 what to know before using the weights

`share` writes one. SEGRT_MIRROR names one, as a folder or an http(s) base URL.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segrt import lock, mirrors, seals, store, zoo
from segrt.errors import DownloadError, ModelError
from segrt.files import commit, replacing, sha256, write_atomic
from segrt.http import LIMITS, Advance, Limits, discard
from segrt.metadata import KEY, ModelMeta
from segrt.mirrors import Base, UnavailableError
from segrt.protobuf import fields
from segrt.validation import first_problem
from segrt.waiting import download_bar
from segrt.zoo import ModelSpec, RelativePath

INDEX = "index.json"
_INDEX_BYTES = 4 << 20
_METADATA_PROPS = 14  # field of ModelProto
_REPORT, _LICENCE = "model.parity.json", "LICENCE.txt"


class Entry(BaseModel):
    """One file of a shelf.

    Attributes:
        name: the model's name in the zoo.
        path: relative to the shelf.
        sha256: its SHA-256, lower-case hexadecimal.
        size: its size in bytes.
        segrt_export: the version of segrt-export that wrote the model; empty if unknown.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: RelativePath
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    segrt_export: str = ""


class Index(BaseModel):
    """The contents of `index.json`."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    files: tuple[Entry, ...] = ()

    def entries(self, spec: ModelSpec) -> list[Entry]:
        """The files of a model, with the ONNX file last; none if the shelf lacks that."""
        folder = _folder(spec)
        found = [entry for entry in self.files if entry.path.rpartition("/")[0] == folder]
        found.sort(key=lambda entry: entry.path.endswith("/model.onnx"))
        return found if found and found[-1].path == f"{folder}/model.onnx" else []


def share(folder: Path, names: Sequence[str] = ()) -> list[ModelSpec]:
    """Write converted models to a shelf; models that it contains already stay there.

    The index is written last: until then, others see the shelf as it was.

    Example:
        >>> [spec.name for spec in share(Path("/mnt/models"), ["SegFormer-B0"])]
        ['SegFormer-B0 (slice)']

    Args:
        folder: the shelf; created if missing.
        names: models of the zoo; empty for all that were converted or downloaded here.

    Returns:
        list: the models.

    Raises:
        ModelError: a model is unknown or not converted, there is none, or one was changed.
        DownloadError: the shelf can't be written, or its index is invalid.
    """
    specs = [zoo.get(name) for name in names] or [
        stored.spec for stored in store.downloaded() if stored.onnx and not stored.spec.bundled
    ]
    if not specs:
        raise ModelError("no model is converted yet: run  segrt models fetch NAME  first")
    files = {spec.name: store.require(spec) for spec in specs}
    advice = "use a writable folder with enough space"
    with store.locked(folder, str(folder), "writing to", ".segrt-lock", advice):
        index = _parse(folder / INDEX) or Index()
        for spec in specs:
            fresh = list(_copy(spec, files[spec.name], folder))
            kept = [old for old in index.files if old.path.rpartition("/")[0] != _folder(spec)]
            index = Index(files=(*kept, *fresh))
        write_atomic(folder / INDEX, (index.model_dump_json(indent=2) + "\n").encode())
    return specs


def find(base: Base, limits: Limits = LIMITS) -> Index | None:
    """The index of a shelf; None if there is no shelf.

    Example:
        >>> find(Path("/mnt/models")).files[0].name
        'SegFormer-B0 (slice)'

    Raises:
        DownloadError: the server fails, or the index is invalid.
    """
    if isinstance(base, Path):
        return _parse(base / INDEX)
    with tempfile.TemporaryDirectory(prefix="segrt-") as work:
        file = Path(work) / INDEX
        bound = Limits(**{**vars(limits), "max_bytes": _INDEX_BYTES})
        missing = mirrors.get(mirrors.address(base, INDEX), file, bound, lambda *_: None)
        return None if missing else _parse(file, mirrors.shown(mirrors.address(base, INDEX)))


def download(
    spec: ModelSpec, base: Base, entries: Sequence[Entry], progress: bool, limits: Limits = LIMITS
) -> Path:
    """Get the files of a model from a shelf, into the cache folder.

    Example:
        >>> spec, base = zoo.get("SegFormer-B0"), Path("/mnt/models")
        >>> download(spec, base, find(base).entries(spec), progress=True)
        PosixPath('/home/me/.cache/segrt/onnx/SegFormer-B0_slice/model.onnx')

    Args:
        spec: the model.
        base: the shelf.
        entries: its files, as returned by `Index.entries`.
        progress: show a progress bar on stderr if that is a terminal.
        limits: when to give up.

    Returns:
        Path: the ONNX file.

    Raises:
        UnavailableError: the shelf can't be reached, or lacks a file.
        DownloadError: a file has another size or SHA-256, or is not in the lock file.
        OSError: the cache folder can't be written.
    """
    target = store.onnx_path(spec)
    target.parent.mkdir(parents=True, exist_ok=True)
    with download_bar(spec.name, progress) as advance:
        for entry in entries:
            _get(base, entry, target.parent / entry.path.rpartition("/")[2], limits, advance)
    return target


def _get(base: Base, entry: Entry, target: Path, limits: Limits, advance: Advance) -> None:
    """Get one file; the seal is written before the file has its name."""
    part = target.with_name(target.name + ".part")
    address = mirrors.address(base, entry.path)
    source = mirrors.shown(address)
    try:
        missing = mirrors.get(address, part, limits, advance)
    except OSError as error:
        store.discard_if_full(part, error)
        raise
    if missing:
        raise UnavailableError(f"{source}, which {INDEX} lists, is not available ({missing})")
    size, digest = part.stat().st_size, sha256(part)
    if (size, digest) != (entry.size, entry.sha256):
        discard(part)
        raise DownloadError(
            f"{source} has {size} bytes and sha256 {digest}, but {INDEX} lists {entry.size} bytes "
            f"and {entry.sha256}: it was changed or damaged; share it again"
        )
    if target.name == "model.onnx":
        try:
            lock.enforce(store.key_of(target), digest)
        except DownloadError:
            discard(part)
            raise
        seals.write(part, source, target=target, digest=digest)
    commit(part, target)
    discard(part)


def _folder(spec: ModelSpec) -> str:
    return f"onnx/{store.folder_name(spec.name)}"


def _copy(spec: ModelSpec, model: Path, folder: Path) -> Iterator[Entry]:
    """Copy the files of a model to a shelf; yields their entries."""
    version = _exporter(model)
    target = folder / _folder(spec)
    if spec.licence:
        write_atomic(target / _LICENCE, f"{spec.name}: {spec.licence}\n".encode())
    reports = (model.with_name(_REPORT), model.with_name("parity.json"))  # as in the wheel
    for file, name in [*((report, _REPORT) for report in reports), (model, model.name)]:
        if file.is_file():
            with replacing(target / name) as temporary:
                shutil.copyfile(file, temporary)
    for name in (_LICENCE, _REPORT, model.name):
        file = target / name
        if file.is_file():
            yield Entry(
                name=spec.name,
                path=f"{_folder(spec)}/{name}",
                sha256=sha256(file),
                size=file.stat().st_size,
                segrt_export=version,
            )


def _exporter(model: Path) -> str:
    """The version of segrt-export that wrote a model; empty if unknown."""
    with suppress(ValueError, IndexError, LookupError, ModelError):
        for number, _, entry in fields(memoryview(model.read_bytes())):
            if number == _METADATA_PROPS:
                key, value = (bytes(text) for _, _, text in fields(entry))
                if key.decode() == KEY:
                    return ModelMeta.loads(value.decode(), file=str(model)).tools["segrt"]
    return ""


def _parse(file: Path, source: str = "") -> Index | None:
    try:
        return Index.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise DownloadError(
            f"{source or file} is not the index of a shelf: {first_problem(error)}"
        ) from None
