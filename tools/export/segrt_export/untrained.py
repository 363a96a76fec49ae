"""Untrained models: each of the 18 networks with random weights, as a Paddle inference model.

An untrained model has the layers, shapes and file format of the published model. It serves to test
the conversion and to measure speed when the real weights are not available; it says nothing about
accuracy.

Purely random weights would not do: activations vanish or overflow within a hundred layers, one
class wins everywhere, and almost equal logits make the labels of two correct runtimes differ. So
convolutions are initialised after He et al. (https://arxiv.org/abs/1502.01852), batch-norm
statistics are measured on synthetic scenes, and the last layer is rotated and scaled until its
logits are well separated.

Still, the labels of random logits depend on small differences everywhere, unlike those of a trained
network. Given labelled photos, `build_untrained` fits the last layer to them instead, in closed
form: a fitted twin, whose labels mean something and whose margins are those of real classes.

Requires the `export` extra and, except for SeaFormer, paddleseg without its outdated pins
(`pip install --no-deps paddleseg==2.8.0`).

    python -m segrt_export.untrained "SegFormer-B0 (slice)" ./untrained
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

import segrt_export
from segrt.errors import MissingExtraError
from segrt_export.requirements import require

if TYPE_CHECKING:
    from paddle import Tensor, nn

Format = Literal["json", "pdmodel"]

# With what it imports and does not install, because it is installed without dependencies.
_PADDLESEG = ("requests", "scipy", "six", "sklearn", "tqdm", "paddleseg")

# Standard deviation of each class's logit on the calibration scenes. With 19 classes, about 0.003%
# of the pixels have a margin below 1e-4, where float rounding may decide between two classes.
_LOGIT_SPREAD = 8.0

# Many calibration scenes, because layers after a global pooling see one value per scene. Their size
# is a quarter of 512 x 1024 in each direction, so that SegFormer-B5 takes seconds; dilations are
# divided by the same factor, or they would reach only padding.
_SCENES, _HEIGHT, _WIDTH = 12, 128, 256
_SHRINK = 4

# Penalty of the ridge regression that fits a classifier, relative to the features' mean square.
_RIDGE = 1e-5

Photo: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""A labelled photo: BGR, uint8 (H, W, 3), and labels, uint8 (H, W); labels that are no class of the
network are ignored."""


@dataclass(frozen=True)
class _Architecture:
    """One network in PaddleSeg's terms.

    Attributes:
        model: Class in `paddleseg.models`, or "SeaFormer" (`segrt_export.seaformer`).
        backbone: Class or factory in `paddleseg.models.backbones`, or the variant of SeaFormer.
        classifiers: Paths of the layers that return logits at inference, including auxiliary
            classifiers that later layers read.
        num_classes: 19 for Cityscapes, 150 for ADE20K.
        options: Arguments of the model in its published configuration.
        shrunk_options: Arguments that differ for calibration on small scenes.
        backbone_options: Arguments of the backbone in the published configuration.
    """

    model: str
    backbone: str
    classifiers: tuple[str, ...]
    num_classes: int = 19
    options: Mapping[str, Any] = field(default_factory=dict)
    shrunk_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)


def _pp_liteseg(backbone: str, **options: Any) -> _Architecture:
    return _Architecture("PPLiteSeg", backbone, ("seg_heads.0.conv_out",), options=options)


def _ocrnet(backbone: str) -> _Architecture:
    # The auxiliary logits weight the pixels of each object region, so they must be distinct too.
    return _Architecture(
        "OCRNet", backbone, ("head.aux_head.1", "head.cls_head"), options={"backbone_indices": [0]}
    )


def _deeplab(
    model: str, backbone: str, classifier: str, backbone_indices: list[int]
) -> _Architecture:
    ratios = [1, 12, 24, 36]
    return _Architecture(
        model,
        backbone,
        (classifier,),
        options={
            "backbone_indices": backbone_indices,
            "aspp_ratios": ratios,
            "aspp_out_channels": 256,
        },
        shrunk_options={"aspp_ratios": [1, *(ratio // _SHRINK for ratio in ratios[1:])]},
        backbone_options={"output_stride": 8, "multi_grid": [1, 2, 4]},
    )


def _deeplabv3(backbone: str) -> _Architecture:
    return _deeplab("DeepLabV3", backbone, "head.cls", [3])


def _deeplabv3_plus(backbone: str) -> _Architecture:
    return _deeplab("DeepLabV3P", backbone, "head.decoder.conv", [0, 3])


def _segformer(size: int) -> _Architecture:
    options = {"embedding_dim": 256 if size < 2 else 768}
    return _Architecture(
        "SegFormer", f"MixVisionTransformer_B{size}", ("linear_pred",), options=options
    )


def _seaformer(variant: str) -> _Architecture:
    return _Architecture("SeaFormer", variant, ("classifier",), num_classes=150)


_ARCHITECTURES: Mapping[str, _Architecture] = {
    "OCRNet_HRNet-W48": _ocrnet("HRNet_W48"),
    "PP-LiteSeg-T": _pp_liteseg(
        "STDC1", arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64]
    ),
    "Deeplabv3_Plus-R50": _deeplabv3_plus("ResNet50_vd"),
    "Deeplabv3_Plus-R101": _deeplabv3_plus("ResNet101_vd"),
    "Deeplabv3-R50": _deeplabv3("ResNet50_vd"),
    "Deeplabv3-R101": _deeplabv3("ResNet101_vd"),
    "OCRNet_HRNet-W18": _ocrnet("HRNet_W18"),
    "PP-LiteSeg-B": _pp_liteseg("STDC2"),
    **{f"SegFormer-B{size} (slice)": _segformer(size) for size in range(6)},
    "SeaFormer_base(slice)": _seaformer("base"),
    "SeaFormer_large (slice)": _seaformer("large"),
    "SeaFormer_small (slice)": _seaformer("small"),
    "SeaFormer_tiny (slice)": _seaformer("tiny"),
}

NAMES: tuple[str, ...] = tuple(_ARCHITECTURES)
"""The 18 names as published by PaddleX, including spaces."""


def build_untrained(
    name: str,
    out_dir: Path,
    *,
    seed: int = 0,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    format: Literal["json", "pdmodel"] = "json",
    photos: Sequence[Photo] = (),
) -> Path:
    """Write a model with random weights.

    The files are those of a PaddleX model: `inference.json` (Paddle 3 program) or
    `inference.pdmodel` (Paddle 2), `inference.pdiparams` and `inference.yml`. The input of the
    program is `x`, float32 (N, 3, H, W) of any N, H and W, RGB, (value / 255 - 0.5) / 0.5; the
    output is int32 (N, H, W), class ids in [0, num_classes).

    Example:
        >>> build_untrained("SegFormer-B0 (slice)", Path("untrained"))
        PosixPath('untrained')

    Args:
        name: One of `NAMES`.
        out_dir: Folder to create; it appears only once the model is complete.
        seed: Seed of the weights.
        num_classes: Number of classes; by default as published (19, SeaFormer 150).
        class_names: One name per class; by default "class_0", "class_1", ...
        format: Format of the program.
        photos: Labelled photos to fit the classifiers to; only with the format that this process's
            Paddle writes. Classes that don't occur get the logit 0 everywhere, so the network keeps
            its published number of classes.

    Returns:
        `out_dir`.

    Raises:
        ValueError: `name` is unknown, `class_names` and `num_classes` disagree, or `photos` are
            given for the other format.
        FileExistsError: `out_dir` exists and is not empty.
        MissingExtraError: a package is not installed; the message contains the command.
        RuntimeError: The child process that writes the other program format failed.
    """
    architecture = _architecture(name)
    if class_names is None:
        class_names = [f"class_{i}" for i in range(num_classes or architecture.num_classes)]
    if num_classes not in (None, len(class_names)):
        raise ValueError(
            f"{len(class_names)} class names for num_classes={num_classes}: specify one per class"
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f"{out_dir} is not empty: specify a new folder, or delete it first")
    _require(architecture)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}-") as work:
        # A subfolder, because only its owner may read the temporary folder itself.
        folder = Path(work) / "model"
        folder.mkdir()
        if _can_write(format):
            _write_program(name, len(class_names), seed, folder, photos)
        elif photos:
            raise ValueError(f"photos can't be fitted with format={format!r}: omit one of them")
        else:
            _write_in_child(name, len(class_names), seed, folder, format)
        _write_config(name, class_names, format, folder)
        if out_dir.exists():
            out_dir.rmdir()  # it is empty; not every system can replace a folder
        os.replace(folder, out_dir)
    return out_dir


def parameter_count(name: str) -> int:
    """Count a model's parameters as PaddleSeg does.

    The count includes batch-norm statistics and heads that are only used in training (PP-LiteSeg
    has two), so the published model contains slightly fewer.

    Example:
        >>> parameter_count("SegFormer-B0 (slice)")
        3719539

    Args:
        name: One of `NAMES`.

    Returns:
        The number of values, for the published number of classes.

    Raises:
        ValueError: `name` is unknown.
        MissingExtraError: a package is not installed; the message contains the command.
    """
    network = _network(_architecture(name), None)
    return sum(int(parameter.size) for parameter in network.parameters())


def _architecture(name: str) -> _Architecture:
    if name not in _ARCHITECTURES:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    return _ARCHITECTURES[name]


def _require(architecture: _Architecture) -> None:
    """Check that everything is installed before minutes are spent, also what converts the model."""
    own = () if architecture.model == "SeaFormer" else _PADDLESEG
    require("paddle", "paddle2onnx", "onnx", "onnxslim", "onnxruntime", *own)


def _network(architecture: _Architecture, num_classes: int | None) -> nn.Layer:
    """Build the network with the weights of its initialisers."""
    _require(architecture)
    num_classes = num_classes or architecture.num_classes
    if architecture.model == "SeaFormer":
        return segrt_export.build_seaformer(architecture.backbone, num_classes)
    from paddleseg import models

    backbone = getattr(models, architecture.backbone)(**architecture.backbone_options)
    network: nn.Layer = getattr(models, architecture.model)(
        num_classes, backbone, **architecture.options
    )
    return network


def _randomise(network: nn.Layer, rng: np.random.Generator) -> None:
    """Draw all parameters, so that none depends on Paddle's own random state."""
    from paddle import nn

    for layer in network.sublayers(include_self=True):
        is_norm = isinstance(layer, (nn.BatchNorm2D, nn.LayerNorm))
        for key, parameter in layer.named_parameters(include_sublayers=False):
            shape = tuple(parameter.shape)
            if is_norm and key == "weight":
                values = rng.uniform(0.8, 1.2, shape)
            elif isinstance(layer, (nn.Conv2D, nn.Linear)) and key == "weight":
                fan_in = shape[0] if isinstance(layer, nn.Linear) else int(np.prod(shape[1:]))
                values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / fan_in)
            elif is_norm and key == "bias":
                # ReLU removes half of a signal around zero, and the next batch norm amplifies the
                # rest, so that float rounding would grow from layer to layer, unlike in trained
                # networks. This keeps most of the signal above zero.
                values = rng.normal(1.0, 0.1, shape)
            elif key in ("_mean", "_variance"):
                values = np.full(shape, key == "_variance")  # measured later
            else:
                # Not zero, so that a converter that drops or swaps a bias changes the labels.
                values = rng.normal(0, 0.1, shape)
            parameter.set_value(values.astype(np.float32))


def _scenes(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Synthetic scenes with roughly the brightness, contrast and edges of street photographs.

    Smooth random fields, whose spectra fall with a power of the frequency like those of photographs
    (Field, JOSA A 4, 1987), divide a scene into regions of one colour with a common texture.
    Brightness varies between scenes as much as between day and dusk, because a random network
    amplifies inputs outside the range that its batch norms were calibrated on.

    Returns:
        float32, (_SCENES, 3, _HEIGHT, _WIDTH), normalised for the networks: in [-1, 1].
    """
    frequency = np.hypot(np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH))
    frequency[0, 0] = 1.0

    def fields(count: int, power: float) -> npt.NDArray[np.float64]:
        noise = np.fft.rfft2(rng.standard_normal((count, _HEIGHT, _WIDTH)))
        noise[:, 0, 0] = 0.0  # no mean
        smooth = np.fft.irfft2(noise / frequency**power, s=(_HEIGHT, _WIDTH))
        return np.asarray(smooth / smooth.std((1, 2), keepdims=True))

    scenes = []
    for _ in range(_SCENES):
        regions = fields(8, rng.uniform(2, 3)).argmax(0)
        colours = rng.normal(0, 0.4) + rng.normal(0, 0.55, (8, 1)) + rng.normal(0, 0.1, (8, 3))
        texture = rng.uniform(0.02, 0.2) * (
            fields(1, rng.uniform(1, 2)) + 0.3 * fields(3, rng.uniform(1, 2))
        )
        scenes.append(colours[regions].transpose(2, 0, 1) + texture)
    return np.asarray(np.clip(scenes, -1, 1), np.float32)


def _separate_classes(classifier: nn.Layer, inputs: tuple[Tensor, ...]) -> None:
    """Set the weights of a 1x1 convolution so that no class wins everywhere; a forward pre-hook.

    The weights of each class are made orthogonal to the mean feature of every scene, so that its
    logit has mean zero in each scene even without a bias, and scaled to `_LOGIT_SPREAD`.
    """
    features = inputs[0].numpy().astype(np.float64).reshape(_SCENES, inputs[0].shape[1], -1)
    weights = classifier.weight.numpy()[:, :, 0, 0].astype(np.float64)
    means, _ = np.linalg.qr(features.mean(2).T)
    weights -= (weights @ means) @ means.T
    weights *= _LOGIT_SPREAD / (weights @ features).std((0, 2))[:, None]
    classifier.weight.set_value(weights[:, :, None, None].astype(np.float32))


def _calibrate(network: nn.Layer, classifiers: Sequence[str], rng: np.random.Generator) -> None:
    """Measure batch-norm statistics and set the classifiers in one pass over the scenes."""
    import paddle
    from paddle import nn

    layers = dict(network.named_sublayers())
    norms = [layer for layer in layers.values() if isinstance(layer, nn.BatchNorm2D)]
    network.eval()  # no dropout, no training-only heads
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm._momentum = 0.0  # use the statistics of this pass alone; training mixes in a tenth
    hooks = [layers[path].register_forward_pre_hook(_separate_classes) for path in classifiers]
    with paddle.no_grad():
        network(paddle.to_tensor(_scenes(rng)))
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm._momentum = momentum
    network.eval()


def _fit(network: nn.Layer, classifiers: Sequence[str], photos: Sequence[Photo]) -> None:
    """Fit each classifier, a 1x1 convolution, to labelled photos by ridge regression.

    The targets are one-hot labels. The solution W = Y S X^T (X S X^T + a I)^-1, with the features
    X, the targets Y and the weights S of all pixels, needs only sums over pixels. A pixel's weight
    is one over the root of the frequency of its class, or rare classes would win nowhere.
    Classifiers are fitted one after the other, since later features may depend on earlier logits
    (OCRNet).
    """
    import paddle

    layers = dict(network.named_sublayers())
    pixels = sum(np.bincount(labels.ravel(), minlength=256) for _, labels in photos)
    pixel_weights = 1 / np.sqrt(np.maximum(pixels, 1))
    for path in classifiers:
        classifier = layers[path]
        regression = _Regression(classifier, pixel_weights)
        hook = classifier.register_forward_pre_hook(regression.add)
        with paddle.no_grad():
            for image, labels in photos:
                regression.labels = labels
                rgb = image[:, :, ::-1].transpose(2, 0, 1)[None]
                network(paddle.to_tensor(((rgb / 255 - 0.5) / 0.5).astype(np.float32)))
        hook.remove()
        regression.solve()


class _Regression:
    """Ridge regression of one-hot labels on the input of a 1x1 convolution.

    Attributes:
        labels: Labels of the image that runs.
    """

    def __init__(self, classifier: nn.Layer, pixel_weights: npt.NDArray[np.float64]) -> None:
        self.labels: npt.NDArray[np.uint8] = np.empty((0, 0), np.uint8)
        self._classifier, self._pixel_weights = classifier, pixel_weights
        self._classes, channels = classifier.weight.shape[:2]
        self._has_bias = classifier.bias is not None
        channels += self._has_bias  # a feature that is 1 everywhere
        self._squares = np.zeros((channels, channels))
        self._products = np.zeros((self._classes, channels))

    def add(self, classifier: nn.Layer, inputs: tuple[Tensor, ...]) -> None:
        """Add the pixels of an image; a forward pre-hook."""
        features = inputs[0].numpy()[0].astype(np.float64)
        # The label at the centre of each feature's square.
        rows, columns = (
            ((np.arange(few) + 0.5) * many / few).astype(int)
            for few, many in zip(features.shape[1:], self.labels.shape, strict=True)
        )
        labels = self.labels[np.ix_(rows, columns)].ravel()
        known = labels < self._classes
        features = features.reshape(len(features), -1)[:, known]
        if self._has_bias:
            features = np.concatenate([features, np.ones((1, features.shape[1]))])
        weighted = features * self._pixel_weights[labels[known]]
        self._squares += weighted @ features.T
        self._products += np.eye(self._classes)[labels[known]].T @ weighted.T

    def solve(self) -> None:
        """Set the weights of the convolution."""
        penalty = _RIDGE * np.trace(self._squares) / len(self._squares)
        regular = self._squares + penalty * np.eye(len(self._squares))
        weights = np.linalg.solve(regular, self._products.T).T * _LOGIT_SPREAD
        if self._has_bias:
            weights, bias = weights[:, :-1], weights[:, -1]
            self._classifier.bias.set_value(bias.astype(np.float32))
        self._classifier.weight.set_value(weights[:, :, None, None].astype(np.float32))


def _calibrated_network(
    architecture: _Architecture, num_classes: int | None, seed: int
) -> nn.Layer:
    """Build the network with random, calibrated weights that depend on the seed alone."""
    rng = np.random.default_rng(seed)
    shrunk = replace(architecture, options={**architecture.options, **architecture.shrunk_options})
    small = _network(shrunk, num_classes)
    _randomise(small, rng)
    _calibrate(small, architecture.classifiers, rng)
    if shrunk == architecture:
        return small
    network = _network(architecture, num_classes)
    network.set_state_dict(small.state_dict())
    network.eval()
    return network


def _write_program(
    name: str, num_classes: int, seed: int, folder: Path, photos: Sequence[Photo] = ()
) -> None:
    """Write the program in the format that this process's Paddle is set to, and the weights."""
    import paddle
    from paddle import nn

    class LabelMap(nn.Layer):
        """The network, followed by the argmax that PaddleSeg's own export appends."""

        def __init__(self, network: nn.Layer) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return paddle.argmax(self.network(x)[0], axis=1, dtype="int32")

    device = paddle.get_device()
    paddle.set_device("cpu")  # for the same weights with and without a GPU
    try:
        # Names are numbered from zero, so that the file depends on the seed alone.
        with paddle.utils.unique_name.guard():
            architecture = _architecture(name)
            network = _calibrated_network(architecture, num_classes, seed)
            if photos:
                _fit(network, architecture.classifiers, photos)
            if not _can_write("json"):
                _trace_as_paddle_2(network)
            spec = paddle.static.InputSpec([None, 3, None, None], "float32", name="x")
            label_map = LabelMap(network)
            label_map.eval()
            paddle.jit.save(label_map, str(folder / "inference"), input_spec=[spec])
    finally:
        paddle.set_device(device)


def _trace_as_paddle_2(network: nn.Layer) -> None:
    """Replace the parts of PP-LiteSeg that Paddle 3 can't trace: size checks and sigmoid."""
    import paddle
    from paddle.base.layer_helper import LayerHelper

    def sigmoid(x: Tensor, name: str | None = None) -> Tensor:
        helper = LayerHelper("sigmoid", name=name)
        out = helper.create_variable_for_type_inference(x.dtype)
        helper.append_op(type="sigmoid", inputs={"X": x}, outputs={"Out": out})
        return out

    for layer in network.sublayers():
        if hasattr(layer, "check"):
            layer.check = paddle.jit.not_to_static(layer.check)
    paddle.nn.functional.sigmoid = sigmoid  # this process writes one program and exits


def _can_write(format: Format) -> bool:
    """Whether this process's Paddle writes that format, which is fixed when Paddle is imported."""
    import paddle

    flag = "FLAGS_enable_pir_api"
    return bool(paddle.get_flags(flag)[flag]) == (format == "json")


def _write_in_child(name: str, num_classes: int, seed: int, folder: Path, format: Format) -> None:
    """Run `_write_program` in a new process whose Paddle is set to `format`."""
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {
        "FLAGS_enable_pir_api": str(int(format == "json")),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    arguments = json.dumps([name, num_classes, seed, str(folder.resolve())])
    code = (
        "import json, pathlib, sys; from segrt_export import untrained;"
        "*rest, folder = json.loads(sys.argv[1]);"
        "untrained._write_program(*rest, pathlib.Path(folder))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(
            f"writing {name} as {format} failed (exit status {child.returncode}):\n"
            f"{child.stderr[-2000:]}"
        )


def _write_config(name: str, class_names: Sequence[str], format: Format, folder: Path) -> None:
    """Write `inference.yml`, the description that PaddleX and segrt read."""
    config = {
        "Global": {"model_name": name.removesuffix("(slice)").rstrip()},
        "Deploy": {
            "model": f"inference.{format}",
            "params": "inference.pdiparams",
            "input_shape": [None, 3, None, None],
            "output_op": "argmax",
            "output_dtype": "int32",
            "transforms": [{"type": "Normalize"}],
        },
        "PostProcess": {"label_list": list(class_names)},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (folder / "inference.yml").write_text(text, encoding="utf-8")


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m segrt_export.untrained", description="Write a model with random weights."
    )
    parser.add_argument("name", choices=NAMES, metavar="name", help="; ".join(NAMES))
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-classes", type=int)
    parser.add_argument("--format", choices=("json", "pdmodel"), default="json")
    options = parser.parse_args()
    try:
        print(build_untrained(**vars(options)))
    except MissingExtraError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
