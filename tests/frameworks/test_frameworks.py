"""Networks of transformers, torchvision and segmentation_models.pytorch, compared with torch.

`make frameworks-test`. All weights are random, from a fixed seed: nothing is downloaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from conftest import SHARED
from PIL import Image

import segrt
from segrt import datasets
from segrt.accuracy import ConfusionMatrix
from segrt.model_configs import huggingface
from segrt.pipeline import Pipeline
from segrt.preprocess import Transforms
from segrt.result import SegResult

pytestmark = pytest.mark.frameworks

torch = pytest.importorskip("torch")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = [{"type": "Normalize", "mean": list(MEAN), "std": list(STD)}]
SAMPLE = Path(segrt.__file__).parent / "models" / "sample.png"
SEGFORMER = SHARED / "models" / "segformer-b0-camvid"
AXES = {0: "batch", 2: "height", 3: "width"}

Record = Callable[[str, object], None]


@pytest.fixture(scope="module", autouse=True)
def _operators() -> None:
    """Declare torchvision's operators where its library can't be loaded.

    The torchvision of PyPI is built for CUDA and requires these declarations to be imported next to
    the CPU build of torch. None of the networks here uses them.
    """
    for name, arguments in (
        ("nms", "Tensor dets, Tensor scores, float iou_threshold"),
        ("qnms", "Tensor dets, Tensor scores, float iou_threshold"),
    ):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            torch.library.define(f"torchvision::{name}", f"({arguments}) -> Tensor")
        except ImportError:
            return


def _photo(size: tuple[int, int], index: int = 0) -> Image.Image:
    """A photo of the given (height, width)."""
    photos = sorted((SHARED / "camvid_mini" / "images").glob("*.png")) or [SAMPLE]
    with Image.open(photos[index % len(photos)]) as image:
        return image.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)


def _bgr(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def _predict(pipeline: Pipeline, image: Image.Image, *, scores: bool = False) -> SegResult:
    (result,) = pipeline.predict(_bgr(image), scores=scores)
    assert isinstance(result, SegResult)
    return result


def _normalized(image: Image.Image) -> Any:
    """An image as ImageNet's networks expect it: float32 (1, 3, H, W)."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def _spread(layer: Any, logits: Any, by: float = 1.0) -> None:
    """Scale the last layer so that each class has logits of mean 0 and standard deviation `by`.

    Otherwise, a random network assigns one class to nearly all pixels.
    """
    std, mean = torch.std_mean(logits.double(), dim=(0, 2, 3))
    scale = (by / std).float()
    bias = 0 if layer.bias is None else layer.bias.data
    layer.weight.data *= scale.view(-1, 1, 1, 1)
    layer.bias = torch.nn.Parameter((bias - mean.float()) * scale)


def _export(
    network: Any, pixels: Any, path: Path, name: str, *outputs: str, dynamo: bool = False
) -> Path:
    """Export with any batch, height and width, by tracing or with torch's newer exporter."""
    axes = {name: AXES, **dict.fromkeys(outputs, AXES)}
    if dynamo:
        free = (dict.fromkeys(AXES, torch.export.Dim.AUTO),)
        pair = torch.cat([pixels, pixels])  # it takes a batch of one for a constant
        torch.onnx.export(network, (pair,), str(path), dynamo=True, dynamic_shapes=free)
        return path
    with torch.no_grad():
        torch.onnx.export(
            network,
            (pixels,),
            str(path),
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return path


def _agreement(labels: npt.NDArray[Any], right: npt.NDArray[Any], least: int = 3) -> float:
    """The share of equal labels; `least`: number of classes that must occur."""
    assert labels.shape == right.shape
    assert len(np.unique(right)) >= least, "the network predicts too few classes to compare"
    return float((labels == right).mean())


@pytest.fixture
def record(record_property: Record, capsys: pytest.CaptureFixture[str]) -> Record:
    """Print a measurement, and add it to the test report."""

    def note(name: str, value: object) -> None:
        record_property(name, value)
        with capsys.disabled():
            print(f"\n{name}: {value}")

    return note


def _segformer(folder: Path, processor: Any, classes: int) -> Any:
    """Write a small SegFormer as optimum does; returns the network."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.SegformerConfig(
        hidden_sizes=[16, 32, 40, 64],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=64,
        id2label={i: f"kind {i}" for i in range(classes)},
        label2id={f"kind {i}": i for i in range(classes)},
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    pixels = processor(images=_photo((360, 480)), return_tensors="pt").pixel_values
    with torch.no_grad():
        _spread(network.decode_head.classifier, network(pixels).logits, 3)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    _export(network, pixels, folder / "model.onnx", "pixel_values", "logits")
    return network


@pytest.mark.parametrize("reduce_labels", [False, True])
def test_segformer_of_transformers(reduce_labels: bool, tmp_path: Path, record: Record) -> None:
    transformers = pytest.importorskip("transformers")
    options = {"size": {"height": 192, "width": 256}, "do_reduce_labels": reduce_labels}
    processor = transformers.SegformerImageProcessorPil(**options)
    network = _segformer(tmp_path, processor, classes=9)
    other = transformers.SegformerImageProcessor(**options)  # torchvision's resize
    pipeline = segrt.create_pipeline(model_dir=tmp_path, device="cpu")
    assert pipeline.class_names == tuple(network.config.id2label[i] for i in range(9))
    for index, size in enumerate([(360, 480), (241, 317), (512, 1024)]):
        image = _photo(size, index)
        result = _predict(pipeline, image)
        shares = []
        for reference in (processor, other):
            with torch.no_grad():
                outputs = network(reference(images=image, return_tensors="pt").pixel_values)
            (right,) = reference.post_process_semantic_segmentation(outputs, target_sizes=[size])
            shares.append(_agreement(result.labels, right.numpy()))
        record(f"SegFormer, reduce_labels {reduce_labels}, {size}: Pillow, torchvision", shares)
        assert shares[0] >= 0.9999
        assert shares[1] >= 0.99  # its resize rounds differently


_SIZE = {"height": 150, "width": 411}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("Segformer", {"size": _SIZE, "resample": resample}) for resample in range(6)),
        ("Segformer", {"size": 224}),
        ("Segformer", {"size": {"shortest_edge": 200}, "default_to_square": False}),
        ("Segformer", {"do_resize": False}),
        ("Segformer", {"do_normalize": False}),
        ("Segformer", {"do_rescale": False}),
        ("Segformer", {"rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": [1] * 3}),
        ("Segformer", {"image_mean": 0.5, "image_std": 0.25}),
        ("Beit", {}),
        ("DPT", {}),
        ("ViT", {}),
    ],
    ids=str,
)
def test_image_processors_of_transformers(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**options)
    processor.save_pretrained(tmp_path)
    stated = huggingface.preprocessor_config(tmp_path / "preprocessor_config.json").values
    transforms = Transforms.parse(stated["transforms"], resize_in=stated["resize_in"])
    for size in ((241, 317), (360, 200)):
        image = _photo(size)
        right = processor(images=image, return_tensors="np").pixel_values
        batch = transforms.batch([transforms.fit(_bgr(image), transforms.layout(size))])
        np.testing.assert_allclose(batch, right, atol=1e-6, rtol=1e-6)


def test_deeplab_of_torchvision(tmp_path: Path, record: Record) -> None:
    pytest.importorskip("torchvision")
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(7)
    network = deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    image = _photo((128, 160))
    with torch.no_grad():
        outputs = network(_normalized(image))
        _spread(network.classifier[-1], outputs["out"])
        _spread(network.aux_classifier[-1], outputs["aux"])
    file = _export(network, _normalized(image), tmp_path / "deeplab.onnx", "input", "out", "aux")
    pipeline = segrt.create_pipeline(model_dir=file, transforms=IMAGENET, device="cpu")
    assert pipeline.describe()["output"][0] == "out: logits"
    for index, size in enumerate([(128, 160), (97, 131)]):
        image = _photo(size, index)
        with torch.no_grad():
            right = network(_normalized(image))["out"][0].argmax(0).numpy()
        result = _predict(pipeline, image)
        share = _agreement(result.labels, right)
        record(f"deeplabv3_resnet50 {size}", share)
        assert share >= 0.9999
    chosen = segrt.create_pipeline(model_dir=file, transforms=IMAGENET, output="aux", device="cpu")
    with torch.no_grad():
        right = network(_normalized(image))["aux"][0].argmax(0).numpy()
    result = _predict(chosen, image)
    assert _agreement(result.labels, right) >= 0.9999


@pytest.mark.parametrize(
    ("activation", "dynamo"), [(None, False), ("sigmoid", False), (None, True), ("sigmoid", True)]
)
def test_binary_unet_of_smp(
    activation: str | None, dynamo: bool, tmp_path: Path, record: Record
) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(7)
    network = smp.Unet("resnet18", encoder_weights=None, classes=1, activation=activation).eval()
    image = _photo((256, 320))
    with torch.no_grad():
        head = torch.nn.Sequential(*list(network.segmentation_head)[:-1])
        features = network.decoder(network.encoder(_normalized(image)))
        _spread(network.segmentation_head[0], head(features))
    file = _export(
        network, _normalized(image), tmp_path / "unet.onnx", "input", "mask", dynamo=dynamo
    )
    pipeline = segrt.create_pipeline(
        model_dir=file, transforms=IMAGENET, class_names=["road"], device="cpu"
    )
    assert pipeline.class_names == ("background", "road")
    for index, size in enumerate([(256, 320), (128, 160)]):
        image = _photo(size, index)
        with torch.no_grad():
            mask = network(_normalized(image))[0, 0]
        road = (mask if activation else torch.sigmoid(mask)).numpy()
        result = _predict(pipeline, image, scores=True)
        assert result.scores is not None
        share = _agreement(result.labels, (road > 0.5).astype(int), least=2)
        difference = np.abs(result.scores - np.maximum(road, 1 - road)).max()
        name = f"Unet, {activation or 'logits'}, dynamo {dynamo}, {size}"
        record(f"{name}: labels, scores", (share, float(difference)))
        assert share >= 0.9999
        assert difference < 1e-4


def _mmdeploy_files(mean: list[float], std: list[float]) -> dict[str, dict[str, Any]]:
    """The two files that mmdeploy writes for its SDK."""
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "keep_ratio": False, "size": [256, 128]},  # width, height
        {"type": "Normalize", "mean": mean, "std": std, "to_rgb": True},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"], "meta_keys": ["img_shape", "ori_shape", "flip"]},
    ]
    net = {"name": "fcn", "net": "end2end.onnx", "weights": "", "backend": "onnxruntime"}
    return {
        "deploy.json": {
            "version": "1.3.1",
            "task": "Segmentor",
            "models": [{**net, "precision": "FP32", "batch_size": 1, "dynamic_shape": True}],
            "customs": [],
        },
        "pipeline.json": {
            "pipeline": {
                "input": ["img"],
                "output": ["post_output"],
                "tasks": [
                    {
                        "type": "Task",
                        "module": "Transform",
                        "name": "Preprocess",
                        "input": ["img"],
                        "output": ["prep_output"],
                        "transforms": steps,
                    },
                    {
                        "name": "fcn",
                        "type": "Task",
                        "module": "Net",
                        "input": ["prep_output"],
                        "output": ["infer_output"],
                        "input_map": {"img": "input"},
                    },
                    {
                        "type": "Task",
                        "module": "mmseg",
                        "name": "postprocess",
                        "component": "ResizeMask",
                        "params": {"type": "FCNHead", "num_classes": 5},
                        "output": ["post_output"],
                        "input": ["prep_output", "infer_output"],
                    },
                ],
            }
        },
    }


def test_folder_of_mmdeploy(tmp_path: Path, record: Record) -> None:
    """Labels N x 1 x H x W, and the two files that mmdeploy writes for its SDK."""
    torch.manual_seed(7)
    convolutions = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 5, 3, padding=1)
    ).eval()

    class Labels(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, logits: Any) -> Any:
            return logits.argmax(1, keepdim=True)

    segmentor = torch.nn.Sequential(convolutions, Labels()).eval()
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

    def prepare(image: Image.Image) -> Any:
        resized = cv2.resize(_bgr(image), (256, 128), interpolation=cv2.INTER_LINEAR)
        pixels = (resized[:, :, ::-1].astype(np.float64) - mean) / std
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]

    image = _photo((241, 317))
    with torch.no_grad():
        _spread(convolutions[-1], convolutions(prepare(image)))
    _export(segmentor, prepare(image), tmp_path / "end2end.onnx", "input", "output")
    for name, content in _mmdeploy_files(mean, std).items():
        (tmp_path / name).write_text(json.dumps(content, indent=4))
    pipeline = segrt.create_pipeline(model_dir=tmp_path, device="cpu")
    assert pipeline.class_names == tuple(f"class_{i}" for i in range(5))
    with torch.no_grad():
        labels = segmentor(prepare(image))[0, 0].numpy().astype(np.uint8)
    right = cv2.resize(labels, image.size, interpolation=cv2.INTER_NEAREST)
    result = _predict(pipeline, image)
    share = _agreement(result.labels, right)
    record("mmdeploy, labels N x 1 x H x W", share)
    assert share >= 0.9999


def test_trained_segformer_has_the_accuracy_of_its_card(camvid: Path, record: Record) -> None:
    if not SEGFORMER.is_dir():
        pytest.skip("needs the model in ../shared/models, which is not part of the project")
    pipeline = segrt.create_pipeline(model_dir=SEGFORMER, device="cpu")
    id2label = json.loads((SEGFORMER / "config.json").read_text())["id2label"]
    assert pipeline.class_names == tuple(id2label[str(i)] for i in range(len(id2label)))
    pairs = datasets.find(camvid, datasets.Layout.FOLDER)
    truth = datasets.Truth()
    classes = len(pipeline.class_names)
    matrix = ConfusionMatrix(classes, truth.ignore_index(classes))
    results = pipeline.predict([pair.image for pair in pairs])
    for pair, result in zip(pairs, results, strict=True):
        assert isinstance(result, SegResult)
        matrix.add(result.labels, truth.read(pair.label))
    record(
        "SegFormer-B0 on camvid_mini: mIoU, pixel accuracy", (matrix.miou, matrix.pixel_accuracy)
    )
    assert len(pairs) == 40
    assert math.isclose(100 * matrix.miou, 43.27, abs_tol=0.1)
