from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from segrt_export.passes.half_weights import SMALLEST, half_weights


def test_only_large_weights_are_stored_as_float16() -> None:
    rng = np.random.default_rng(0)
    wide = SMALLEST // 27 + 1
    weights = {
        "big": rng.standard_normal((wide, 3, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(wide).astype(np.float32),
        "huge": np.full((SMALLEST // wide + 1, wide, 1, 1), 1e6, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "big", "bias"], ["a"]),
        helper.make_node("Conv", ["a", "huge"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, None, None])
        for n, c in (("x", 3), ("y", None))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        values[:1],
        values[1:],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)

    def run() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {"x": x})[0])

    before = run()
    assert half_weights(model) == 1
    onnx.checker.check_model(model, full_check=True)
    stored = {i.name: i.data_type for i in model.graph.initializer}
    assert stored == {
        "big.half": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
        "huge": TensorProto.FLOAT,
    }
    np.testing.assert_allclose(run(), before, rtol=0.02, atol=np.abs(before).max() * 1e-3)
