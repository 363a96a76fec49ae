"""Graph passes, one per file. A pass matches by structure and leaves other graphs unchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection

from onnx import ModelProto

from segrt.errors import ExportError
from segrt.validation import did_you_mean
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
"""The rewrites that save arithmetic or data movement, by name, in the order in which they run. Each
works in place and returns how often it applied."""

FLOAT32_REWRITES: dict[str, Callable[[ModelProto], int]] = {"winograd": winograd}
"""The rewrites that only speed up FP32 on the CPU. They produce the second graph, see
`segrt.second_graph`."""


def check_names(names: Collection[str]) -> None:
    """Check the names of rewrites.

    Example:
        >>> check_names(["winograd"])

    Raises:
        ExportError: a name is unknown; the message lists the valid names.
    """
    known = [*REWRITES, *FLOAT32_REWRITES]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ExportError(
            f"no pass is named {', '.join(unknown)}{did_you_mean(unknown[0], known)}; passes that"
            f" can be left out: {', '.join(known)}"
        )
