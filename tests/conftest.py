"""Fixtures: tiny generated models and images, and the real data in ../shared if available."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, save_model
from PIL import Image

from segrt.metadata import KEY, ModelMeta, Upsample

SHARED = Path(__file__).parents[2] / "shared"
COLOURS = ("red", "green", "blue")

# Shells make background jobs ignore Ctrl-C, and processes started by tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def write_colour_model(
    path: Path, *, stride: int = 4, labels: bool = False, meta: bool = True
) -> Path:
    """Write a network whose classes 0, 1 and 2 are red, green and blue; logits at 1/stride."""
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["logits"], kernel_shape=[stride] * 2, strides=[stride] * 2
        )
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, "h", "w"])]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["labels"], axis=1, keepdims=0))
        outputs = [helper.make_tensor_value_info("labels", TensorProto.INT64, ["N", "h", "w"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])]
    graph = helper.make_graph(nodes, "colours", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if meta:
        content = ModelMeta(
            name="colours",
            class_names=COLOURS,
            output="labels" if labels else "logits",
            upsample=None if labels else Upsample(stride=stride),
        )
        helper.set_model_props(model, {KEY: content.model_dump_json()})
    save_model(model, str(path))
    return path


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Let the processes of pytest-xdist report names that are not UTF-8, as in captured logs."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_encodable(item) for item in value)
    return value


@pytest.fixture(autouse=True)
def log_level() -> Generator[None]:
    """Undo the level that commands and servers set, so that no test depends on those before it."""
    logger = logging.getLogger("segrt")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """segrt's cache folder, empty and not yet created."""
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def colour_model(tmp_path: Path) -> Path:
    """A `.onnx` file that classifies colours, with segrt's metadata."""
    return write_colour_model(tmp_path / "colours.onnx")


@pytest.fixture
def tiles() -> npt.NDArray[np.uint8]:
    """A BGR image, uint8 (64, 96, 3): red, green and blue thirds from left to right."""
    image = np.zeros((64, 96, 3), np.uint8)
    for third, channel in enumerate((2, 1, 0)):
        image[:, 32 * third : 32 * third + 32, channel] = 250
    return image


@pytest.fixture
def tile_labels() -> npt.NDArray[np.int32]:
    """The expected labels of `tiles`: int32 (64, 96)."""
    return np.repeat(np.arange(3, dtype=np.int32), 32)[None].repeat(64, axis=0)


@pytest.fixture
def save_image(tmp_path: Path) -> Callable[[str, npt.NDArray[np.uint8]], Path]:
    """A function that saves a BGR array as an image file in the test's folder."""

    def save(name: str, image: npt.NDArray[np.uint8]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, ::-1]).save(path)
        return path

    return save


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The folder of 40 photos with annotations."""
    folder = SHARED / "camvid_mini"
    if not folder.is_dir():
        pytest.skip("needs the photos in ../shared/camvid_mini, which are not part of the project")
    return folder


@pytest.fixture(scope="session")
def paddle_lite() -> Path:
    """The folder of the trained Paddle model."""
    folder = SHARED / "models" / "PP-LiteSeg-T_camvid"
    if not folder.is_dir():
        pytest.skip("needs the Paddle model in ../shared/models, which is not part of the project")
    return folder
