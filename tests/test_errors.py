from __future__ import annotations

import pytest

from segrt import errors
from segrt.errors import SegrtError


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.InputError, ValueError),
        (errors.TooLargeError, ValueError),
        (errors.ModelError, ValueError),
        (errors.DeviceError, RuntimeError),
        (errors.ExportError, RuntimeError),
        (errors.MissingExtraError, ImportError),
        (errors.DownloadError, Exception),
    ],
)
def test_errors_are_segrt_errors_and_built_in_ones(
    error: type[SegrtError], builtin: type[Exception]
) -> None:
    for expected in (SegrtError, builtin):
        with pytest.raises(expected, match=r"^one line$"):
            raise error("one line")


def test_too_large_is_an_input_error() -> None:
    assert issubclass(errors.TooLargeError, errors.InputError)
