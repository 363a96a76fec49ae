from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Net

from segrt import external_data
from segrt.backends.footprint import UNKNOWN, measure
from segrt.errors import ModelError


def _model(folder: Path, location: str) -> Path:
    """A model whose weights are in another file."""
    net = Net()
    model = net.model(net.conv("x", 3, 4, kernel_shape=[1, 1]))
    folder.mkdir(parents=True, exist_ok=True)
    for tensor in model.graph.initializer:
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        (folder / "weights.bin").write_bytes(data + bytes(4096))
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
            tensor.external_data.add(key=key, value=value)
        break
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def test_weights_in_the_folder_of_the_model_are_fine(tmp_path: Path) -> None:
    file = _model(tmp_path / "m", "weights.bin")
    assert set(external_data.locations(memoryview(file.read_bytes()))) == {"weights.bin"}
    external_data.check(file)
    assert measure(file) is UNKNOWN  # as bytes, it would look in the current directory


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "_MEM_ADDR_"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    with pytest.raises(ModelError, match=r"model\.onnx"):
        external_data.check(_model(tmp_path / "m", location))


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    file = _model(tmp_path / "m", "link.bin")
    (tmp_path / "secret").write_bytes(bytes(4096))
    (tmp_path / "m" / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"link\.bin"):
        external_data.check(file)


def test_hostile_models_are_one_line(tmp_path: Path) -> None:
    """Damaged and odd models, in a process of their own: none crashes it, or is a traceback."""
    good = _model(tmp_path / "m", "weights.bin").read_bytes()
    rng = np.random.default_rng(0)
    kinds = [good[: len(good) // 2], b"", b"\x0a", good + good, b"\xff" * 1000, b"\x3b" * 1000]
    for _ in range(40):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            damaged[at] = rng.integers(0, 256)
        kinds.append(bytes(damaged))
    for number, data in enumerate(kinds):
        (tmp_path / "m" / f"{number}.onnx").write_bytes(data)
    code = """
import sys
import numpy as np
import segrt
for file in sys.argv[1:]:
    try:
        pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
        list(pipeline.predict(np.zeros((16, 16, 3), np.uint8)))
    except segrt.SegrtError as error:
        assert "\\n" not in str(error), error
print("done")
"""
    files = sorted(str(file) for file in (tmp_path / "m").glob("[0-9]*.onnx"))
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr[-2000:]
