from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import machines as m
import pytest

from segrt.backends.cache import engine_cache, model_hash, recall, remember, tuning_file
from segrt.backends.plan import BACKENDS, HpiConfig, Plan
from segrt.errors import ConfigError
from segrt.files import sha256
from segrt.types import Device

NORMAL = Plan(BACKENDS["cpu"], "fp32", 2)
FAST = Plan(BACKENDS["openvino"], "fp32", 2)


pytestmark = pytest.mark.usefixtures("home")


def test_recall_requires_the_same_conditions(colour_model: Path, home: Path) -> None:
    machine, cpu = replace(m.OPENVINO, versions=(("onnxruntime", "1.31.1"),)), Device("cpu")
    assert recall(colour_model, machine, cpu, None) is None
    remember(colour_model, machine, (64, 96), FAST, {})
    remember(colour_model, machine, (8, 8), NORMAL, {})
    assert recall(colour_model, machine, cpu, (64, 96)) == HpiConfig(
        backend="openvino", precision="fp32", threads=2
    )
    latest = HpiConfig(backend="cpu", precision="fp32", threads=2)
    for device in (cpu, None):
        assert recall(colour_model, machine, device, None) == latest
    assert recall(colour_model, machine, Device("gpu", (0,)), None) is None
    other_version = replace(machine, versions=(("onnxruntime", "1.32.0"),))
    assert recall(colour_model, other_version, cpu, None) is None
    assert recall(colour_model, replace(machine, cpu=m.AMX), cpu, None) is None
    with_gpu = replace(machine, gpus=(m.T4,))  # irrelevant to the CPU
    assert recall(colour_model, with_gpu, cpu, (64, 96)) is not None
    colour_model.write_bytes(colour_model.read_bytes() + b"\n")
    assert recall(colour_model, machine, cpu, None) is None
    assert sorted(path.name for path in home.iterdir()) == ["tuning.json", "tuning.json.lock"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damaged_tuning_results_are_ignored(colour_model: Path, home: Path, text: str) -> None:
    home.mkdir()
    (home / "tuning.json").write_text(text)
    assert recall(colour_model, m.OPENVINO, None, None) is None
    remember(colour_model, m.OPENVINO, (8, 8), NORMAL, {})
    assert recall(colour_model, m.OPENVINO, None, None) == HpiConfig(
        backend="cpu", precision="fp32", threads=2
    )


def test_malformed_tuning_results_are_ignored(colour_model: Path, home: Path) -> None:
    remember(colour_model, m.OPENVINO, (8, 8), NORMAL, {})
    (records,) = json.loads((home / "tuning.json").read_text()).items()
    wrongs: list[Any] = [1, {}, {"8x8": 1}, {"8x8": {}}, {"8x8": {"plan": {"backend": "warp"}}}]
    for wrong in wrongs:
        (home / "tuning.json").write_text(json.dumps({records[0]: wrong}))
        assert recall(colour_model, m.OPENVINO, None, (8, 8)) is None


def test_concurrent_tuning_loses_no_results(colour_model: Path) -> None:
    sizes = [(8 * n, 8) for n in range(1, 17)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda size: remember(colour_model, m.OPENVINO, size, NORMAL, {}),
                sizes,
            )
        )
    (record,) = json.loads(tuning_file().read_text()).values()
    assert len(record) == len(sizes)


def test_unwritable_folder_is_a_config_error(colour_model: Path, home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(ConfigError, match="set SEGRT_HOME"):
        remember(colour_model, m.OPENVINO, (8, 8), NORMAL, {})


def test_engine_cache_depends_on_model_gpu_and_versions(colour_model: Path, home: Path) -> None:
    other = colour_model.with_name("other.onnx")
    other.write_bytes(b"another model")
    machine = replace(
        m.GPU_T4, versions=(("onnxruntime-gpu", "1.31.1"), ("tensorrt-cu13-libs", "10.16"))
    )
    keys = {
        engine_cache(colour_model, machine),
        engine_cache(colour_model, replace(machine, gpus=(m.H100,))),
        engine_cache(
            colour_model,
            replace(machine, versions=(("onnxruntime-gpu", "1.32.0"), machine.versions[1])),
        ),
        engine_cache(
            colour_model,
            replace(machine, versions=(machine.versions[0], ("tensorrt-cu13-libs", "10.15"))),
        ),
        engine_cache(other, machine),
    }
    assert len(keys) == 5
    assert all(key and key.startswith(str(home)) for key in keys)
    assert engine_cache(colour_model, m.OPENVINO) is None


def test_model_hash_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"1")
    assert model_hash(file) == sha256(file)
    file.write_bytes(b"22")
    assert model_hash(file) == sha256(file)
