from typing import Any

import numpy as np
import pytest

from segrt.errors import ConfigError
from segrt.look import Look

NAMES = ("road", "traffic light", "sky")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha -0.1 is not valid: it must be from 0 to 1"),
        ({"alpha": float("nan")}, "alpha nan is not valid"),
        ({"alpha": "half"}, "alpha 'half' is not valid"),
        ({"legend": "left"}, "legend 'left' is not valid: use auto, right, below, inside, none"),
        ({"background": "pink"}, "background 'pink' is not valid: use blur, white, transparent"),
        ({"background": "transparent", "side_by_side": True}, "side_by_side is for comparing"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Look(**options)


def test_defaults_depend_on_the_background() -> None:
    assert (Look().weight, Look().place) == (0.5, "auto")
    cut_out = Look(only="sky", background="white")
    assert (cut_out.weight, cut_out.place) == (0, "none")
    given = Look(only="sky", background="white", alpha=0.3, legend=True)
    assert (given.weight, given.place) == (0.3, "auto")
    assert Look(legend=False).place == "none"


@pytest.mark.parametrize("only", ["Traffic Light, sky", ["sky", "traffic-light"]])
def test_classes_to_show(only: Any) -> None:
    shows = Look(only=only).shows(NAMES)
    np.testing.assert_array_equal(shows, [False, True, True])
    assert Look().shows(NAMES) is None


def test_a_class_named_background_is_left_out() -> None:
    shows = Look(background="blur").shows(("Background", "cat"))
    np.testing.assert_array_equal(shows, [False, True])
    with pytest.raises(ConfigError, match="needs the classes to keep: name them with only"):
        Look(background="blur").shows(NAMES)


@pytest.mark.parametrize("only", ["", "road,,sky", [], [3]])
def test_invalid_classes(only: Any) -> None:
    with pytest.raises(ConfigError, match=r"only .* is not valid: give class names"):
        Look(only=only).shows(NAMES)
    with pytest.raises(ConfigError, match=r"no class 'rood' \(did you mean 'road'\?\): use road"):
        Look(only="rood").shows(NAMES)
