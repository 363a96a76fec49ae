"""How images are segmented: the validated arguments of `Pipeline.predict`."""

from __future__ import annotations

from dataclasses import dataclass, field

from segrt import zoo
from segrt.errors import ConfigError, TooLargeError
from segrt.slide import Progress, Window, parse_window
from segrt.types import TargetSize, shown

MAX_BATCH = 4096
"""Maximum number of images that run together."""


@dataclass(frozen=True)
class Request:
    """What one call of `predict` does with each image.

    Attributes:
        target_size: inference size.
        batch_size: images, or crops of the sliding window, that run together.
        scores: whether to compute the scores.
        window: sliding window; None for whole images.
        progress: callback of the sliding window.
    """

    target_size: TargetSize = None
    batch_size: int = 1
    scores: bool = False
    window: Window | None = None
    progress: Progress | None = field(default=None, compare=False)

    @classmethod
    def parse(
        cls,
        model_name: str,
        output: str,
        *,
        target_size: TargetSize,
        batch_size: object,
        scores: bool,
        slide: object,
        progress: Progress | None,
    ) -> Request:
        """Validate the arguments for a model.

        Raises:
            ConfigError: one of them is invalid, or the model has no scores.
        """
        if type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH:
            raise ConfigError(
                f"batch_size {shown(batch_size)} is not valid: it must be a whole number from 1 to "
                f"{MAX_BATCH}"
            )
        window = parse_window(slide)
        if window is True:
            window = _window_of(model_name)
        if output == "labels" and (scores or window):
            raise ConfigError(
                f"{model_name} ends in labels: it has no scores, and nothing to average in a window"
            )
        return cls(target_size, batch_size, scores, window or None, progress)


def check_size(model_name: str, request: Request, fixed: tuple[int | None, int | None]) -> None:
    """Refuse a target size, or a crop, that a model of fixed size does not take.

    Args:
        model_name: the model.
        request: the validated arguments.
        fixed: the only (height, width) that it takes; None where it takes any.

    Raises:
        ConfigError: it does not take that size.
    """
    size = request.window.crop if request.window else request.target_size
    if not any(fixed) or size is None:
        return
    fits = isinstance(size, tuple) and all(
        side in (None, wanted) for side, wanted in zip(fixed, size, strict=True)
    )
    if not fits:
        takes = " x ".join(str(side) if side else "any" for side in fixed)
        raise ConfigError(
            f"{model_name} takes images of {takes} (height x width) only, not {shown(size)}: leave "
            "target_size out, and give a sliding window crops of that size"
        )


def _window_of(model_name: str) -> Window:
    specs = (spec for spec in zoo.load().models if spec.answers_to(model_name))
    window = next((spec.slide for spec in specs), None)
    if window is None:
        raise ConfigError(
            f"model_zoo.yaml gives {model_name} no sliding window: name one, as in "
            "slide={'crop': 1024, 'stride': 768}"
        )
    return Window(window.crop_size, window.stride)


def too_large(error: Exception, size: tuple[int, int]) -> TooLargeError:
    """The error for an inference size (height, width) at which NumPy or OpenCV fails."""
    height, width = size
    reason = " ".join(str(error).split())[:200] or "out of memory"
    return TooLargeError(
        f"the inference size {height} x {width} is too large here ({reason}): use a smaller "
        "target_size or batch_size, or a sliding window"
    )
