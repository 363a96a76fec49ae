"""Options of `segrt predict` for overlays."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from segrt.cli.options import first_given
from segrt.errors import ConfigError
from segrt.look import Background, Legend, Look

PICTURES = Group("Overlays", help="Each of these saves overlays.", sort_key=5)

_FLAG = Parameter(group=PICTURES, negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """The options of `SegResult.overlay`."""

    alpha: Annotated[float | None, Parameter(group=PICTURES)] = None
    """Weight of the colours, 0 to 1; default: 0.5, or 0 with a background."""

    legend: Annotated[Legend | None, Parameter(group=PICTURES)] = None
    """Place of the legend; default: auto, or none with a background."""

    outlines: Annotated[bool | None, Parameter(group=PICTURES)] = None
    """Lines between classes; default: if two have similar colours."""

    names: Annotated[bool, _FLAG] = False
    """Write class names into large regions."""

    only: Annotated[str | None, Parameter(group=PICTURES)] = None
    """Classes to show, such as road,car."""

    background: Annotated[Background | None, Parameter(group=PICTURES)] = None
    """Cut out the classes of --only: what replaces the rest."""

    side_by_side: Annotated[bool, _FLAG] = False
    """Put the photo to the left."""

    @property
    def given(self) -> bool:
        """Whether any option is set."""
        return self != PictureOptions()

    def check_video(self, name: str) -> None:
        """Refuse what no overlay video has.

        Raises:
            ConfigError: it is asked for.
        """
        asked = {
            "--legend": self.legend not in (None, "none"),
            "--names": self.names,
            "--side-by-side": self.side_by_side,
        }
        if option := first_given(asked):
            raise ConfigError(
                f"{option} is for pictures, but {name} is a video: segment it in another call, or "
                "leave out the option"
            )

    def look(self) -> Look:
        """The same, checked."""
        return Look(**asdict(self))
