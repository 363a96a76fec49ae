from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segrt.cli.jobs import JobOptions
from segrt.cli.options import PipelineOptions
from segrt.cli.predict import predict
from segrt.cli.saving import OutputOptions
from segrt.errors import ConfigError, InputError, MissingExtraError, SegrtError

RAY = PipelineOptions(engine="ray")


@pytest.mark.parametrize(
    ("name", "output", "error", "message"),
    [
        ("a.png", OutputOptions(), ConfigError, "needs --save-path: a folder that all nodes share"),
        (
            "a.png",
            OutputOptions(show="paddlex", save_path=Path("out")),
            ConfigError,
            "shares or JSON",
        ),
        ("a.png", OutputOptions(save_path=Path("x.png")), ConfigError, "one file: use a folder"),
        ("a.mp4", OutputOptions(save_path=Path("out")), InputError, r"a\.mp4 is a video"),
        ("camera:0", OutputOptions(save_path=Path("out")), InputError, "camera:0 is a video"),
    ],
)
def test_what_is_refused(
    name: str,
    output: OutputOptions,
    error: type[SegrtError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        predict([name], model=RAY, output=output)
    assert not list(tmp_path.iterdir())


def test_an_address_needs_the_engine() -> None:
    with pytest.raises(ConfigError, match="--ray-address needs --engine ray"):
        predict(["a.png"], job=JobOptions(ray_address="auto"))


def test_without_ray(colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    model = PipelineOptions(engine="ray", model_dir=str(colour_model))
    with pytest.raises(MissingExtraError, match=r"pip install 'segrt\[ray\]'"):
        predict(["a.png"], model=model, output=OutputOptions(save_path=tmp_path / "out"))
