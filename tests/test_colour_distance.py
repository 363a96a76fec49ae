import numpy as np
import pytest

from segrt.colour_distance import (
    VISIONS,
    Vision,
    are_close,
    ciede2000,
    differences,
    smallest_difference,
    to_lab,
)

# From the test data of Sharma, Wu and Dalal, 2005: pairs for the rotation of blue, opposite hues,
# greys and large differences.
SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "expected"), SHARMA)
def test_published_differences(
    one: tuple[float, ...], other: tuple[float, ...], expected: float
) -> None:
    pair = np.array([one, other], np.float64)
    assert ciede2000(pair[0], pair[1]) == pytest.approx(expected, abs=1e-4)
    assert ciede2000(pair[1], pair[0]) == pytest.approx(expected, abs=1e-4)


def test_lab_of_known_colours() -> None:
    colours = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]
    expected = np.array(
        [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]], np.float64
    )
    np.testing.assert_allclose(to_lab(colours), expected, atol=0.03)


@pytest.mark.parametrize("vision", VISIONS)
def test_greys_look_the_same_to_all(vision: Vision) -> None:
    greys = np.repeat(np.arange(0, 256, 15), 3).reshape(-1, 3)
    np.testing.assert_allclose(to_lab(greys, vision), to_lab(greys), atol=0.2)


def test_confused_colours() -> None:
    red_and_green = [[200, 60, 40], [110, 110, 30]]
    assert smallest_difference(red_and_green) > 40
    assert smallest_difference(red_and_green, "deutan") < 15
    assert smallest_difference(red_and_green, "tritan") > 20


def test_closeness() -> None:
    assert are_close([[128, 64, 128], [140, 140, 140], [140, 140, 140]])
    assert not are_close([[0, 0, 0], [255, 255, 255]])
    assert not are_close([[1, 2, 3]])
    assert differences([[0, 0, 0], [9, 9, 9]]).shape == (2, 2)
