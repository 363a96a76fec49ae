"""Configurations next to models: what they say is read, and what they can't say is refused."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from graphs import pixel_network

import segrt
from segrt.errors import ModelError
from segrt.model_configs import huggingface, mmdeploy, paddle

PADDLEX: dict[str, Any] = {
    "Global": {"model_name": "m"},
    "Deploy": {
        "transforms": [
            {"type": "Resize", "target_size": [96, 64], "keep_ratio": True, "interp": "AREA"},
            {"type": "Normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
        ]
    },
    "PostProcess": {"label_list": ["background", "crack"]},
}
PADDLESEG: dict[str, Any] = {
    "Deploy": {
        "input_shape": [-1, 3, -1, -1],
        "model": "model.pdmodel",
        "output_dtype": "int32",
        "output_op": "none",
        "params": "model.pdiparams",
        "transforms": [
            {"type": "ResizeByLong", "long_size": 64},
            {"type": "Padding", "target_size": [96, 96], "im_padding_value": 127.5},
            {"type": "Normalize", "mean": [0.4], "std": [0.2]},
        ],
    }
}
HF_MODEL: dict[str, Any] = {
    "model_type": "segformer",
    "architectures": ["SegformerForSemanticSegmentation"],
    "id2label": {"0": "background", "1": "crack"},
    "semantic_loss_ignore_index": 255,
}
HF_IMAGES: dict[str, Any] = {
    "do_normalize": True,
    "do_reduce_labels": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.2, 0.2],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 64, "width": 96},
}
MM_PIPELINE: dict[str, Any] = {
    "pipeline": {
        "input": ["img"],
        "output": ["post_output"],
        "tasks": [
            {
                "type": "Task",
                "module": "Transform",
                "name": "Preprocess",
                "transforms": [
                    {"type": "LoadImageFromFile"},
                    {"type": "Resize", "keep_ratio": False, "size": [96, 64]},
                    {
                        "type": "Normalize",
                        "to_rgb": True,
                        "mean": [123.675, 116.28, 103.53],
                        "std": [58.395, 57.12, 57.375],
                    },
                    {"type": "ImageToTensor", "keys": ["img"]},
                    {"type": "Collect", "keys": ["img"]},
                ],
            },
            {"type": "Task", "module": "Net", "name": "encoderdecoder"},
            {"type": "Task", "module": "mmseg", "component": "ResizeMask"},
        ],
    }
}
MM_DEPLOY: dict[str, Any] = {
    "version": "1.3.1",
    "task": "Segmentor",
    "models": [{"name": "encoderdecoder", "net": "end2end.onnx", "backend": "onnxruntime"}],
    "customs": [],
}
FILES: dict[str, dict[str, Any]] = {
    "inference.yml": PADDLEX,
    "deploy.yaml": PADDLESEG,
    "config.json": HF_MODEL,
    "preprocessor_config.json": HF_IMAGES,
    "pipeline.json": MM_PIPELINE,
    "deploy.json": MM_DEPLOY,
}


def _write(folder: Path, name: str, data: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(data) if path.suffix == ".json" else yaml.safe_dump(data))
    return path


def test_paddlex(tmp_path: Path) -> None:
    stated = paddle.inference_yml(_write(tmp_path, "inference.yml", PADDLEX))
    assert stated.values == {
        "name": "m",
        "transforms": tuple(PADDLEX["Deploy"]["transforms"]),
        "class_names": ("background", "crack"),
    }


def test_paddleseg_has_other_defaults_for_resize(tmp_path: Path) -> None:
    data = {"Deploy": {"transforms": [{"type": "Resize"}, {"type": "Normalize"}]}}
    stated = paddle.deploy_yaml(_write(tmp_path, "deploy.yaml", data))
    assert stated.values["resize_in"] == "float32"
    assert stated.values["transforms"][0] == {
        "type": "Resize",
        "target_size": [512, 512],
        "keep_ratio": False,
        "size_divisor": None,
        "interp": "LINEAR",
    }


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"height": 64, "width": 96}, {"type": "Resize", "target_size": [96, 64]}),
        (512, {"type": "Resize", "target_size": [512, 512]}),
        ({"shortest_edge": 64}, {"type": "ResizeByShort", "short_size": 64, "rounding": "down"}),
        (
            {"shortest_edge": 64, "longest_edge": 99},
            {"type": "ResizeByShort", "short_size": 64, "max_size": 99, "rounding": "down"},
        ),
    ],
)
def test_sizes_of_hugging_face(tmp_path: Path, size: Any, expected: dict[str, Any]) -> None:
    path = _write(tmp_path, "preprocessor_config.json", HF_IMAGES | {"size": size, "resample": 3})
    resize, normalize = huggingface.preprocessor_config(path).values["transforms"]
    assert expected.items() <= resize.items()
    assert resize["interp"] == "PILLOW_BICUBIC"
    assert normalize == {
        "type": "Normalize",
        "scale": 1 / 255,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.2],
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_center_crop": True}, "do_center_crop is set"),
        ({"do_pad": True}, "do_pad is set"),
        ({"keep_aspect_ratio": True}, "keep_aspect_ratio is set"),
        ({"ensure_multiple_of": 32}, "ensure_multiple_of is set"),
        ({"size": {"longest_edge": 64}}, "size must be a height and a width"),
        ({"size": {"height": 64}}, "size must be a height and a width"),
        ({"resample": 9}, "resample 9 is not one of Pillow's filters"),
        ({"image_mean": None}, "do_normalize is set without image_mean"),
        ({"rescale_factor": "x"}, "rescale_factor: "),
    ],
)
def test_what_hugging_face_asks_for_and_segrt_lacks_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = _write(tmp_path, "preprocessor_config.json", HF_IMAGES | change)
    with pytest.raises(ModelError, match=words):
        huggingface.preprocessor_config(path)


def test_maskformer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    kinds = {"architectures": ["MaskFormerForInstanceSegmentation"]}
    with pytest.raises(ModelError, match="predicts masks and their classes"):
        huggingface.model_config(_write(tmp_path, "config.json", HF_MODEL | kinds))


def test_gaps_in_id2label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="id2label must name the classes 0 to 1"):
        huggingface.model_config(
            _write(tmp_path, "config.json", HF_MODEL | {"id2label": {"0": "a", "2": "b"}})
        )


def test_other_json_files_say_nothing(tmp_path: Path) -> None:
    for name, read in (
        ("config.json", huggingface.model_config),
        ("pipeline.json", mmdeploy.pipeline_json),
        ("deploy.json", mmdeploy.deploy_json),
    ):
        assert read(_write(tmp_path, name, {"anything": 1})).values == {}


def test_mmdeploy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"depends on the version of mmdeploy, which deploy\.json"):
        mmdeploy.pipeline_json(_write(tmp_path, "pipeline.json", MM_PIPELINE))
    for version, size in (("0.14.0", [64, 96]), ("1.3.1", [96, 64])):
        _write(tmp_path, "deploy.json", MM_DEPLOY | {"version": version})
        stated = mmdeploy.pipeline_json(tmp_path / "pipeline.json")
        assert stated.values["transforms"][0]["target_size"] == size
    resize, normalize = stated.values["transforms"]
    assert resize["target_size"] == [96, 64]
    assert normalize["scale"] == 1
    assert normalize["mean"] == [123.675, 116.28, 103.53]
    assert mmdeploy.deploy_json(_write(tmp_path, "deploy.json", MM_DEPLOY)).values == {
        "name": "encoderdecoder"
    }
    with pytest.raises(ModelError, match="the task is Detector, not Segmentor"):
        mmdeploy.deploy_json(_write(tmp_path, "deploy.json", MM_DEPLOY | {"task": "Detector"}))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value inside a mapping or list."""
    found = [path] if path else []
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += _paths(value[key], (*path, key))
    return found


ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), "", "x", "1"),
    *([], [1], [0, 0], [[]], {}, {"type": "Normalize"}, [{"type": "Resize"}], ["a", "b", "c"]),
]


def _mutated(data: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    data = copy.deepcopy(data)
    for _ in range(draw.randint(1, 2)):
        paths = _paths(data)
        if not paths:
            break
        *way, key = draw.choice(paths)
        part: Any = data
        for step in way:
            part = part[step]
        if draw.random() < 0.35:
            del part[key]
        else:
            part[key] = copy.deepcopy(draw.choice(ODD))
    return data


@pytest.mark.parametrize("name", list(FILES))
def test_mutated_configurations_never_end_in_a_traceback(tmp_path: Path, name: str) -> None:
    """84 mutations of each of 6 files: each loads with known sources, or is one line."""
    pixel_network(tmp_path / "m.onnx")
    if name == "pipeline.json":
        _write(tmp_path, "deploy.json", MM_DEPLOY)
    draw, image = random.Random(name), np.full((40, 56, 3), 100, np.uint8)
    loaded, refused = 0, list[str]()
    for _ in range(84):
        data = _mutated(FILES[name], draw)
        text = json.dumps(data) if name.endswith("json") else yaml.safe_dump(data)
        (tmp_path / name).write_text(text)
        try:
            pipeline = segrt.create_pipeline(model_dir=tmp_path)
        except ModelError as error:
            refused.append(str(error))
            continue
        loaded += 1
        for value, (_, source) in pipeline.describe().items():
            known = ("default", "the graph", "the file name", name)
            assert source in known or value == "model", (value, data)
        (result,) = pipeline.predict(image, on_error="yield")
        if result.error is None:
            assert isinstance(result, segrt.SegResult)
            assert result.labels.shape == (40, 56)
    assert loaded > 2
    assert len(refused) > 5 or name == "deploy.json"
    assert not any("\n" in text for text in refused)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"id2label": {"0": "a"}, "id2label": {"0": "b"}}')
    with pytest.raises(ModelError, match="the key 'id2label' stands there twice"):
        huggingface.model_config(path)
