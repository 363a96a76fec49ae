from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Net, images, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from segrt import second_graph
from segrt.errors import ModelError


def _with_second_graph() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A file whose second graph adds 1 to the output of the first, and the second as a model."""
    net = Net()
    y = net.conv("x", 3, 5, kernel_shape=[3, 3])
    first = net.model(y)
    second = Net()
    second.nodes, second.constants = net.nodes, net.constants
    whole = second.model(second.add("Add", y, second.const(1)))
    own = onnx.ModelProto()
    own.CopyFrom(whole)
    del own.graph.initializer[:-1]
    helper.set_model_props(
        first,
        {"other": "text", second_graph.KEY: base64.b64encode(own.SerializeToString()).decode()},
    )
    return first, whole


def test_second_graph_runs_with_the_weights_of_the_file(tmp_path: Path) -> None:
    first, whole = _with_second_graph()
    onnx.save(first, tmp_path / "m.onnx")
    data = second_graph.read(tmp_path / "m.onnx")
    assert data is not None
    model = onnx.load_from_string(data)
    x = images(2, 7, 9)
    np.testing.assert_array_equal(run(model, x)[0], run(whole, x)[0])
    np.testing.assert_allclose(run(model, x)[0], run(first, x)[0] + 1, atol=1e-5)


def test_second_graph_survives_rewriting_by_onnx(tmp_path: Path) -> None:
    first, _ = _with_second_graph()
    assert second_graph.assemble(
        memoryview(onnx.load_from_string(first.SerializeToString()).SerializeToString())
    )


def test_file_without_a_second_graph(tmp_path: Path) -> None:
    first, _ = _with_second_graph()
    del first.metadata_props[1]
    onnx.save(first, tmp_path / "m.onnx")
    assert second_graph.read(tmp_path / "m.onnx") is None
    (tmp_path / "empty.onnx").touch()
    assert second_graph.read(tmp_path / "empty.onnx") is None


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_files_do_not_crash(data: st.DataObject) -> None:
    whole = bytearray(_with_second_graph()[0].SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    for part in (memoryview(whole), memoryview(whole)[:end]):
        with suppress(ModelError):
            second_graph.assemble(part)


def test_a_second_graph_that_refers_to_other_files_is_refused(tmp_path: Path) -> None:
    """Given to ONNX Runtime as bytes, it would read them from the current directory."""
    first, second = _with_second_graph()[0], onnx.ModelProto()
    text = next(p.value for p in first.metadata_props if p.key == second_graph.KEY)
    second.ParseFromString(base64.b64decode(text))
    secret = second.graph.initializer.add(name="secret", dims=[4], data_type=1)
    secret.data_location = onnx.TensorProto.EXTERNAL
    secret.external_data.add(key="location", value=".env")
    stolen = base64.b64encode(second.SerializeToString()).decode()
    onnx.helper.set_model_props(first, {second_graph.KEY: stolen})
    with pytest.raises(ModelError, match=r"takes weights from '\.env'"):
        second_graph.assemble(memoryview(first.SerializeToString()))


@pytest.mark.parametrize("damage", [b"\xff" * 20, b"\x0b", b"\x3a\x7f"])
def test_other_files_have_no_second_graph(damage: bytes) -> None:
    assert second_graph.assemble(memoryview(damage)) is None
