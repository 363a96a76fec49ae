"""Fixtures: the application with a tiny model, called without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import write_colour_model
from PIL import Image
from starlette.testclient import TestClient

from segrt import Pipeline, create_pipeline
from segrt.serve.app import create_app
from segrt.serve.settings import Settings

PATH = "/semantic-segmentation"


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode a BGR array as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Gate:
    """Blocks the network until the gate is opened; records the shapes of the batches."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = Event(), Event()
        self.batches: list[tuple[int, ...]] = []
        run = pipeline.session.run

        def gated(batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            self.entered.set()
            assert self.open.wait(20)
            self.batches.append(batch.shape)
            return run(batch)

        monkeypatch.setattr(pipeline.session, "run", gated)


@pytest.fixture
def pipeline(colour_model: str) -> Pipeline:
    return create_pipeline(model_dir=colour_model, device="cpu")


@pytest.fixture
def gate(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(pipeline, monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def serve(pipeline: Pipeline) -> Iterator[Callable[..., TestClient]]:
    """Starts the application with the given settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            TestClient(create_app(pipeline, Settings(**settings)), raise_server_exceptions=False)
        )


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One application with the default settings for tests that only look at the answers."""
    model = write_colour_model(tmp_path_factory.mktemp("shared") / "colours.onnx")
    app = create_app(create_pipeline(model_dir=model, device="cpu"), Settings())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()
