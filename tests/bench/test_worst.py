import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segrt.bench.worst import SHOWN, Worst
from segrt.datasets import Pair


def test_the_worst_photos_are_kept_with_their_labels() -> None:
    worst = Worst(classes=2, ignore_index=255)
    labels = np.zeros((4, 25), np.int32)
    for wrong in range(20):
        truth = np.zeros((4, 25), np.uint8)
        truth.flat[:wrong] = 1
        worst.add(Pair(Path(f"{wrong}.png"), Path("x.png")), labels, truth)
    assert len(worst.photos) == SHOWN
    names = [photo.pair.image.stem for photo in worst.photos]
    assert names == [str(19 - i) for i in range(SHOWN)]
    assert worst.photos[0].miou == pytest.approx(0.81 / 2)
    stored = np.asarray(Image.open(io.BytesIO(worst.photos[0].labels)))
    np.testing.assert_array_equal(stored, labels)


def test_a_photo_without_a_pixel_that_counts_is_left_out() -> None:
    worst = Worst(classes=2, ignore_index=255)
    truth = np.full((2, 2), 255, np.uint8)
    worst.add(Pair(Path("a.png"), Path("b.png")), np.zeros((2, 2), np.int32), truth)
    assert worst.photos == []
