from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from field_files import File, table

from segrt.formats import FORMATS, NOT_READ, READ_SUFFIXES
from segrt.frame import Frame, SegFailure
from segrt.sources import frames

files = cache(table)


def _check(file: File, source: object) -> None:
    *found, last = frames(source)
    if file.refused is None:
        found.append(last)
    else:
        assert isinstance(last, SegFailure)
        assert file.refused in str(last.error)
        assert "\n" not in str(last.error)
    assert len(found) == len(file.images)
    for frame, image in zip(found, file.images, strict=True):
        assert isinstance(frame, Frame), frame.error
        assert frame.image.shape == image.shape
        difference = np.abs(frame.image[..., ::-1].astype(int) - image).max()
        assert difference <= file.tolerance


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in files()])
def test_file_gives_the_pixels_that_were_written(name: str, tmp_path: Path) -> None:
    file = files()[name]
    (tmp_path / name).write_bytes(file.data)
    _check(file, tmp_path / name)


def test_content_decides_without_a_name() -> None:
    by_suffix = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
    for file in files().values():
        if Path(file.name).suffix in by_suffix - _named_only():
            _check(file, file.data)


def _named_only() -> set[str]:
    return {".dib", ".ico", ".msp", ".pcx", ".tga", ".xbm"}


def test_every_format_of_pillow_is_read_or_excluded_with_a_reason() -> None:
    from PIL import Image

    Image.init()
    known = FORMATS.keys() | NOT_READ.keys()
    # Those without a suffix of their own: parts of other formats, and raw scientific data.
    nameless = {"IMT", "MCIDAS", "SPIDER", "XVTHUMB"}
    assert Image.OPEN.keys() - known == nameless - known
    for suffix, form in Image.registered_extensions().items():
        if form in FORMATS:
            assert suffix in READ_SUFFIXES, (suffix, form)
