from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, images, run
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt_export.count import multiply_adds
from segrt_export.passes.image_pool import image_pool


def _aspp(net: Net, *, spread: str, mode: str, channels: int, out: int, kernel: int = 1) -> str:
    pool = net.add("Relu", net.conv(net.add("GlobalAveragePool", "x"), 3, channels))
    if spread == "Expand":
        wide = net.add("Expand", pool, net.sizes("x", channels))
    else:
        kind = {"mode": spread, "coordinate_transformation_mode": mode}
        wide = net.add("Resize", pool, "", "", net.sizes("x", channels), **kind)
    other = net.conv("x", 3, 2)
    concat = net.add("Concat", other, wide, "x", axis=1)
    pads = [kernel // 2] * 4
    return net.add(
        "Relu", net.conv(concat, channels + 5, out, kernel_shape=[kernel] * 2, pads=pads)
    )


@settings(deadline=None, max_examples=30)
@given(
    spread=st.sampled_from(["linear", "nearest", "Expand"]),
    mode=st.sampled_from(["half_pixel", "align_corners", "asymmetric"]),
    channels=st.integers(1, 6),
    out=st.integers(1, 6),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 1000),
)
def test_same_result_with_fewer_multiply_adds(
    spread: str, mode: str, channels: int, out: int, shape: tuple[int, int, int], seed: int
) -> None:
    net = Net(seed)
    model = net.model(_aspp(net, spread=spread, mode=mode, channels=channels, out=out))
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    assert image_pool(model) == 1
    assert work - multiply_adds(model) == channels * out * (512 * 1024 - 1)
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


@pytest.mark.parametrize("case", ["kernel", "crop", "map"])
def test_other_graphs_are_unchanged(case: str) -> None:
    net = Net()
    if case == "map":
        small = net.add("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])
        up = net.add("Resize", small, "", "", net.sizes("x", 3), mode="linear")
        out = net.conv(net.add("Concat", "x", up, axis=1), 6, 2)
    else:
        mode = "tf_crop_and_resize" if case == "crop" else "half_pixel"
        out = _aspp(
            net, spread="linear", mode=mode, channels=3, out=2, kernel=3 if case == "kernel" else 1
        )
    model = net.model(out)
    before = model.SerializeToString()
    assert image_pool(model) == 0
    assert model.SerializeToString() == before
