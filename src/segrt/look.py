"""What an overlay shows: the options of `SegResult.overlay`, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError
from segrt.palette import class_key
from segrt.types import shown
from segrt.validation import did_you_mean

Background = Literal["blur", "white", "transparent"]
"""What replaces the pixels of other classes in a cut-out."""

Legend = Literal["auto", "right", "below", "inside", "none"]
"""Where the legend is; "auto" is below tall pictures and to the right of others."""

BACKGROUND = "background"
"""The class that is left out of a cut-out unless `only` names classes."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an overlay shows.

    Example:
        >>> Look(only="road,car", background="white")

    Attributes:
        alpha: weight of the class colours, from 0 (only the photo) to 1 (only the labels); None is
            0.5, or 0 with a background.
        legend: where the legend is; True is "auto", False "none"; None is "auto", or "none" with a
            background.
        outlines: whether to draw lines between classes; None draws them if two of the classes
            present are hard to tell apart by their colours.
        names: whether to write the names of the classes into large regions.
        only: classes to show, as a list or separated by commas; None for all.
        background: what replaces the pixels of all other classes: the photo, blurred; white; or
            nothing. None leaves the photo.
        side_by_side: whether to put the photo to the left.

    Raises:
        ConfigError: a value is invalid.
    """

    alpha: float | None = None
    legend: bool | Legend | None = None
    outlines: bool | None = None
    names: bool = False
    only: str | Sequence[str] | None = None
    background: Background | None = None
    side_by_side: bool = False

    def __post_init__(self) -> None:
        alpha = self.alpha
        if alpha is not None and not (
            isinstance(alpha, (int, float, np.number)) and 0 <= alpha <= 1
        ):
            raise ConfigError(f"alpha {shown(alpha)} is not valid: it must be from 0 to 1")
        if not isinstance(self.legend, bool):
            _check("legend", self.legend, get_args(Legend))
        _check("background", self.background, get_args(Background))
        if self.background == "transparent" and self.side_by_side:
            raise ConfigError(
                "side_by_side is for comparing with the photo: leave it out with a transparent "
                "background"
            )

    @property
    def weight(self) -> float:
        """`alpha` with its default."""
        if self.alpha is not None:
            return float(self.alpha)
        return 0.5 if self.background is None else 0.0

    @property
    def place(self) -> Legend:
        """`legend` with its default."""
        if self.legend is None:
            return "auto" if self.background is None else "none"
        if isinstance(self.legend, bool):
            return "auto" if self.legend else "none"
        return self.legend

    def shows(self, class_names: Sequence[str]) -> npt.NDArray[np.bool_] | None:
        """Whether each class is shown, bool (K,); None if all are.

        Raises:
            ConfigError: a class is unknown, or it is unclear what to cut out.
        """
        keys = [class_key(name) for name in class_names]
        if self.only is None:
            if self.background is None:
                return None
            if BACKGROUND not in keys:
                raise ConfigError(
                    f"background={self.background!r} needs the classes to keep: name them with "
                    f"only, such as {', '.join(class_names[:3])}"
                )
            return np.array([key != BACKGROUND for key in keys])
        wanted = [one.strip() for one in _split(self.only)]
        for name in wanted:
            if class_key(name) not in keys:
                more = ", ..." if len(class_names) > 30 else ""
                raise ConfigError(
                    f"there is no class {shown(name)}{did_you_mean(name, class_names)}: use "
                    f"{', '.join(class_names[:30])}{more}"
                )
        chosen = {class_key(name) for name in wanted}
        return np.array([key in chosen for key in keys])


def _split(only: str | Sequence[str]) -> Iterable[str]:
    names = only.split(",") if isinstance(only, str) else list(only)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"only {shown(only)} is not valid: give class names, such as road,car")
    return names


def _check(what: str, value: object, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise ConfigError(f"{what} {shown(value)} is not valid: use {', '.join(known)}")
