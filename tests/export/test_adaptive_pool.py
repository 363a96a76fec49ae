from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from segrt.errors import ExportError
from segrt_export.passes import adaptive_pool

NAME = "p2o.pd_op.pool2d.0.0"


def _placeholder() -> onnx.ModelProto:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], [NAME]),
        helper.make_node("Relu", [NAME], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", None, None])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


def _reference(x: npt.NDArray[np.float32], bins: tuple[int, int]) -> npt.NDArray[np.float64]:
    n, c, h, w = x.shape
    out = np.empty((n, c, *bins))
    for i in range(bins[0]):
        for j in range(bins[1]):
            top, left = i * h // bins[0], j * w // bins[1]
            bottom, right = -(-(i + 1) * h // bins[0]), -(-(j + 1) * w // bins[1])
            out[:, :, i, j] = x[:, :, top:bottom, left:right].astype(np.float64).mean(axis=(2, 3))
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
)
def test_matches_the_definition_for_any_size(
    bins: tuple[int, int], shape: tuple[int, int, int, int], seed: int
) -> None:
    model = _placeholder()
    assert adaptive_pool.restore(model, {NAME: bins}) == (bins != (1, 1))
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(seed).random(shape, np.float32)
    np.testing.assert_allclose(_run(model, x), _reference(x, bins), rtol=1e-5)


def test_a_graph_without_placeholder_is_unchanged() -> None:
    model = _placeholder()
    before = model.SerializeToString()
    assert adaptive_pool.restore(model, {}) == 0
    assert model.SerializeToString() == before


def test_a_missing_placeholder_is_an_error() -> None:
    with pytest.raises(ExportError, match="expected a GlobalAveragePool"):
        adaptive_pool.restore(_placeholder(), {"p2o.pd_op.pool2d.9.0": (2, 2)})
