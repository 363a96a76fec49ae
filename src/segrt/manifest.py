"""The manifest of a job: what became of each image, one row an image.

Every engine writes these rows. As JSON, a manifest is a file of lines: the first is the header,
with the settings that decide a label or the name of a result, and each further line is a row. As
Parquet, the header is in the metadata of the schema, under the key `segrt_manifest`.

    {"segrt_manifest": 1, "settings": {"model": "PP-LiteSeg-T_camvid", "label_format": "list"}}
    {"input": "photos/road.jpg", "index": null, "outputs": ["road_res.jpg", "road_res.json"], ...}

Names that are not UTF-8 are `\\udcb5` in JSON, and the same six characters in Parquet, where a
backslash that looks like the start of such a name is written as `\\u005c`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from segrt.errors import InputError, MissingExtraError
from segrt.files import replacing
from segrt.frame import SegFailure

if TYPE_CHECKING:
    import pyarrow

    from segrt.result import SegResult

KEY = "segrt_manifest"
FORMAT = 1

Settings: TypeAlias = dict[str, Any]
"""What must be the same for all rows of a manifest: JSON values by the name of an option."""

_TOGETHER = 10_000  # rows in memory, and in a row group

_AMBIGUOUS = re.compile(r"\\(?=udc[89a-f][0-9a-f]|u005c)")
_ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f]|005c)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one image.

    Example:
        >>> for result in pipeline.predict("photos/", on_error="yield"):
        ...     outputs = [] if result.error else result.save_to_img("output")
        ...     print(Row.of(result, [file.name for file in outputs]).to_json())

    Attributes:
        input: path or URL, as it was given or found in a folder.
        index: zero-based index of a page or frame; None for formats with a single image.
        outputs: the files of the result, relative to the folder of the results.
        shares: the share of the image that each class present covers, in (0, 1], largest first.
        height: of the image, in pixels; None if it failed, like the five that follow.
        width: of the image, in pixels.
        model: name of the model.
        provider: the execution provider that ran it.
        precision: the arithmetic it ran in.
        milliseconds: preprocessing, network and postprocessing; in a batch, its share of them.
        stem: the name that `outputs` begin with.
        error: why it failed; None if it did not.
        last: whether this row completes its input: nothing of it remains to be done.
    """

    input: str
    index: int | None = None
    outputs: Sequence[str] = ()
    shares: Mapping[str, float]
    height: int | None = None
    width: int | None = None
    model: str | None = None
    provider: str | None = None
    precision: str | None = None
    milliseconds: float | None = None
    stem: str | None = None
    error: str | None = None
    last: bool = True

    @classmethod
    def of(
        cls, result: SegResult | SegFailure, outputs: Sequence[str] = (), *, last: bool = True
    ) -> Row:
        """The row of what `Pipeline.predict` yields with `on_error="yield"`.

        Args:
            result: of an input that has a path or URL.
            outputs: the files in which it is saved, relative to the folder of the results.
            last: whether it is the last page or frame of its input.
        """
        name, index = result.input_path or "", result.page_index
        if isinstance(result, SegFailure):
            error = " ".join(str(result.error).split())
            return cls(input=name, index=index, outputs=[], shares={}, error=error, last=last)
        height, width = result.labels.shape
        return cls(
            input=name,
            index=index,
            outputs=list(outputs),
            shares=result.areas(),
            height=height,
            width=width,
            model=result.model_name,
            provider=result.provider,
            precision=result.precision,
            milliseconds=round(result.timings.total, 3),
            stem=result.stem,
            last=last,
        )

    @property
    def key(self) -> tuple[str, int | None]:
        """What no two rows of a manifest have in common."""
        return self.input, self.index

    def to_dict(self) -> dict[str, Any]:
        """The row by the names of its columns, for JSON."""
        return {name: getattr(self, name) for name in COLUMNS}

    def to_json(self) -> bytes:
        """The row as one line of ASCII, without a line break."""
        return json.dumps(self.to_dict(), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, line: bytes) -> Row:
        """Read what `to_json` returns.

        Raises:
            ValueError: it is no row.
        """
        return _checked(json.loads(line))


COLUMNS = tuple(field.name for field in fields(Row))
"""The names of the columns, in order."""

_TYPES: dict[str, tuple[type, ...]] = {
    "input": (str,),
    "index": (int, type(None)),
    "outputs": (list,),
    "shares": (dict,),
    "height": (int, type(None)),
    "width": (int, type(None)),
    "model": (str, type(None)),
    "provider": (str, type(None)),
    "precision": (str, type(None)),
    "milliseconds": (float, int, type(None)),
    "stem": (str, type(None)),
    "error": (str, type(None)),
    "last": (bool,),
}


def header(settings: Settings) -> bytes:
    """The first line of a manifest, without a line break; also the metadata of its Parquet form."""
    return json.dumps({KEY: FORMAT, "settings": settings}, separators=(",", ":")).encode()


def parse_header(line: bytes) -> Settings:
    """The settings in what `header` returns.

    Raises:
        ValueError: it is no header, or that of a later version of segrt.
    """
    data = json.loads(line)
    if not isinstance(data, dict) or KEY not in data:
        raise ValueError("its first line is not the header of a manifest")
    if data[KEY] != FORMAT or not isinstance(data.get("settings"), dict):
        raise ValueError(f"it has the format {data[KEY]!r}, and this version of segrt reads 1")
    settings: Settings = data["settings"]
    return settings


def schema(settings: Settings | None = None) -> pyarrow.Schema:
    """The columns of a manifest for pyarrow, with the header in the metadata if there is one.

    Example:
        >>> schema().names[:3]
        ['input', 'index', 'outputs']

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow()
    columns = [
        pa.field("input", pa.string(), nullable=False),
        pa.field("index", pa.int64()),
        pa.field("outputs", pa.list_(pa.string()), nullable=False),
        pa.field("shares", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("height", pa.int64()),
        pa.field("width", pa.int64()),
        pa.field("model", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("precision", pa.string()),
        pa.field("milliseconds", pa.float64()),
        pa.field("stem", pa.string()),
        pa.field("error", pa.string()),
        pa.field("last", pa.bool_(), nullable=False),
    ]
    metadata = None if settings is None else {KEY: header(settings)}
    made: pyarrow.Schema = pa.schema(columns, metadata)
    return made


def to_table(rows: Iterable[Row], settings: Settings | None = None) -> pyarrow.Table:
    """The rows as a table with the columns of `schema`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    table: pyarrow.Table = _pyarrow().Table.from_pylist(
        [_to_arrow(row) for row in rows], schema(settings)
    )
    return table


def from_table(table: pyarrow.Table | pyarrow.RecordBatch) -> Iterator[Row]:
    """The rows of a table, which may have further columns.

    Raises:
        ValueError: a column is missing, or has another type.
    """
    if missing := [name for name in COLUMNS if name not in table.schema.names]:
        raise ValueError(f"it has no column {missing[0]!r}")
    for data in table.select(list(COLUMNS)).to_pylist():
        data["shares"] = dict(data["shares"])
        yield _unescaped(_checked(data))


def write_parquet(file: Path, rows: Iterable[Row], settings: Settings) -> None:
    """Write a manifest as Parquet, completely or not at all; few rows are in memory at once.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: it can't be written.
    """
    _pyarrow()
    from pyarrow import parquet

    waiting = iter(rows)
    with (
        replacing(file, ".parquet") as temporary,
        parquet.ParquetWriter(temporary, schema(settings), compression="zstd") as writer,
    ):
        while part := list(islice(waiting, _TOGETHER)):
            writer.write_table(to_table(part, settings))


def read(file: str | Path) -> tuple[Settings, Iterator[Row]]:
    """Read a manifest, JSON or Parquet by its suffix. Few rows are in memory at once.

    A last line without a line break is ignored: it was being written when the job was killed.

    Example:
        >>> settings, rows = read("output/manifest.jsonl")
        >>> failed = [row.input for row in rows if row.error]

    Raises:
        InputError: it can't be read, or is no manifest; for later rows, when they are reached.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    file = Path(file)
    found = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_lines(file)
    settings = next(found)
    assert isinstance(settings, dict)
    return settings, (row for row in found if isinstance(row, Row))


def _read_lines(file: Path) -> Iterator[Settings | Row]:
    number = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n"):
                    yield parse_header(line) if number == 1 else Row.from_json(line)
                elif number == 1:
                    raise ValueError("it has no header")
        if not number:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise _refused(file, error, f"line {number}: ") from None


def _read_parquet(file: Path) -> Iterator[Settings | Row]:
    pa = _pyarrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            metadata = opened.schema_arrow.metadata or {}
            yield parse_header(metadata.get(KEY.encode(), b"{}"))
            for batch in opened.iter_batches(_TOGETHER):
                yield from from_table(batch)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _refused(file, error, "") from None


def _refused(file: Path, error: Exception, where: str) -> InputError:
    if isinstance(error, OSError):
        return InputError(f"the manifest {file} can't be read: {error.strerror or error}")
    reason = " ".join(str(error).split())
    return InputError(f"{file} is not a manifest of segrt, or is damaged: {where}{reason}")


def _checked(data: Any) -> Row:
    if not isinstance(data, dict):
        raise ValueError("a row must be an object")
    for name, kinds in _TYPES.items():
        if name not in data:
            raise ValueError(f"a row has no {name!r}")
        if not isinstance(data[name], kinds):
            raise ValueError(f"the {name} of a row can't be {data[name]!r}")
    if not all(isinstance(name, str) for name in data["outputs"]):
        raise ValueError(f"the outputs of a row can't be {data['outputs']!r}")
    return Row(**{name: data[name] for name in COLUMNS})


def _to_arrow(row: Row) -> dict[str, Any]:
    data = row.to_dict()
    for name in ("input", "stem", "error"):
        data[name] = _escape(data[name])
    data["outputs"] = [_escape(name) for name in row.outputs]
    data["shares"] = list(row.shares.items())
    return data


def _unescaped(row: Row) -> Row:
    outputs = [_unescape(name) or "" for name in row.outputs]
    return replace(
        row,
        input=_unescape(row.input) or "",
        stem=_unescape(row.stem),
        error=_unescape(row.error),
        outputs=outputs,
    )


def _escape(text: str | None) -> str | None:
    """Text that is UTF-8, for Parquet."""
    if text is None:
        return None
    text = _AMBIGUOUS.sub(r"\\u005c", text)
    return text.encode("utf-8", "backslashreplace").decode()


def _unescape(text: str | None) -> str | None:
    return text and _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError(
            "a manifest in Parquet needs pyarrow: run  pip install 'segrt[parquet]', or use "
            "--manifest with a name that ends in .jsonl"
        ) from None
    return pyarrow
