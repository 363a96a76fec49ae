"""Graph passes, one file each. A pass finds its pattern by structure and does nothing where it is not there."""

from __future__ import annotations

from collections.abc import Callable, Collection

from onnx import ModelProto

from segrt.errors import ExportError
from segrt_export.passes.conv_before_resize import conv_before_resize
from segrt_export.passes.image_pool import image_pool
from segrt_export.passes.kernel_before_resize import kernel_before_resize
from segrt_export.passes.linear_as_conv import linear_as_conv
from segrt_export.passes.winograd import winograd

REWRITES: dict[str, Callable[[ModelProto], int]] = {
    "image_pool": image_pool,
    "conv_before_resize": conv_before_resize,
    "kernel_before_resize": kernel_before_resize,
    "linear_as_conv": linear_as_conv,
}
"""The rewrites that save arithmetic or the moving of data, by name, in the order in which they run. Each works in place
and returns how often it applied."""

FLOAT32_REWRITES: dict[str, Callable[[ModelProto], int]] = {"winograd": winograd}
"""Those that only plans in float32 on the CPU gain from. They make the second graph: see `segrt.float32`."""


def check_names(names: Collection[str]) -> None:
    """Refuse names that no rewrite has.

    Raises:
        ExportError: it lists the rewrites there are.
    """
    known = [*REWRITES, *FLOAT32_REWRITES]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ExportError(
            f"no pass is named {', '.join(unknown)}; those that can be left out: {', '.join(known)}"
        )
