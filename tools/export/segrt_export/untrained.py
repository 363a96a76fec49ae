"""Untrained twins: each of the 18 networks with random weights, as a Paddle inference model.

A twin has the layers, the shapes and the export form of the published model, but was never trained. So it serves to
test conversion and to measure speed where the real weights are not at hand, and says nothing on accuracy.

The weights are made sane, not only random. Convolutions are drawn after He et al. (https://arxiv.org/abs/1502.01852),
batch-norm statistics are measured on made-up scenes, and the last layer is turned and scaled until its logits lie
clearly apart. Otherwise activations die out or overflow within a hundred layers, one class wins everywhere, and nearly
tied logits make the label maps of two correct runtimes differ.

Needs paddlepaddle, and paddleseg installed without its outdated pins (`pip install --no-deps paddleseg==2.8.0`).

    python -m segrt_export.untrained "SegFormer-B0 (slice)" ./twin
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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

if TYPE_CHECKING:
    from paddle import Tensor, nn

Format = Literal["json", "pdmodel"]

# Standard deviation that each class's logit gets on the calibration scenes, in logit units. With 19 classes it leaves
# about 0.003% of the pixels with a margin below 1e-4, where float rounding may decide between two classes.
_LOGIT_SPREAD = 8.0

# Calibration scenes: many, since layers behind a global pooling see one value per scene; and a quarter of 512 x 1024
# in each direction, so that SegFormer-B5 takes seconds. Dilations must shrink likewise, or they reach only padding.
_SCENES, _HEIGHT, _WIDTH = 12, 128, 256
_SHRINK = 4


@dataclass(frozen=True)
class _Architecture:
    """One network in PaddleSeg's terms.

    Attributes:
        model: Class in `paddleseg.models`; "SeaFormer" is ours.
        backbone: Class or factory in `paddleseg.models.backbones`; for SeaFormer, the name of the variant.
        classifiers: Paths of the layers that give logits at inference, auxiliary ones that feed the last included.
        num_classes: 19 for Cityscapes, 150 for ADE20K.
        options: Arguments of the model, those of its published configuration.
        shrunk_options: Those that differ in the network which stands in for it on the small calibration scenes.
        backbone_options: Arguments of the backbone, likewise.
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
    # The auxiliary logits weigh the pixels of each object region: they must be distinct too.
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
"""The 18 names as PaddleX publishes them, blanks included."""


def build(
    name: str,
    out_dir: Path,
    *,
    seed: int = 0,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    format: Literal["json", "pdmodel"] = "json",
) -> Path:
    """Write the untrained twin of a model.

    The files are those of a PaddleX model: `inference.json` (Paddle 3 program) or `inference.pdmodel` (Paddle 2),
    `inference.pdiparams`, `inference.yml`. The program takes `x`, float32 (N, 3, H, W) with N, H and W free, RGB,
    (value / 255 - 0.5) / 0.5, and answers int32 (N, H, W), class ids in [0, num_classes).

    Args:
        name: One of `NAMES`.
        out_dir: Folder to create; it appears only when the model is whole.
        seed: The same seed gives the same weights.
        num_classes: Classes to tell apart; by default as published (19, SeaFormer 150).
        class_names: One name per class; by default "class_0" and on.
        format: Form of the program.

    Returns:
        `out_dir`.

    Raises:
        ValueError: `name` is unknown, or `class_names` and `num_classes` disagree.
        FileExistsError: `out_dir` already holds something.
        ImportError: paddlepaddle or paddleseg is missing.
        RuntimeError: The child process that writes the other program form failed; the message ends with its output.
    """
    architecture = _architecture(name)
    if class_names is None:
        class_names = [f"class_{i}" for i in range(num_classes or architecture.num_classes)]
    if num_classes not in (None, len(class_names)):
        raise ValueError(
            f"{len(class_names)} class names for num_classes={num_classes}: give as many as classes"
        )
    out_dir = Path(out_dir)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(
            f"{out_dir} already holds something: name a new folder or remove it first"
        )
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}-") as work:
        # Made one level down, as a temporary folder itself is private to its owner.
        folder = Path(work) / "model"
        folder.mkdir()
        if _can_write(format):
            _write_program(name, len(class_names), seed, folder)
        else:
            _write_in_child(name, len(class_names), seed, folder, format)
        _write_config(name, class_names, format, folder)
        if out_dir.exists():
            out_dir.rmdir()  # empty, as seen above; not every system replaces a folder
        os.replace(folder, out_dir)
    return out_dir


def parameter_count(name: str) -> int:
    """Count a model's parameters as PaddleSeg does.

    That is with batch-norm statistics and with heads that serve training only (PP-LiteSeg has two): the published
    model holds a little less.

    Args:
        name: One of `NAMES`.

    Returns:
        The number of values, for the published number of classes.

    Raises:
        ValueError: `name` is unknown.
        ImportError: paddlepaddle or paddleseg is missing.
    """
    network = _network(_architecture(name), None)
    return sum(int(parameter.size) for parameter in network.parameters())


def _architecture(name: str) -> _Architecture:
    if name not in _ARCHITECTURES:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    return _ARCHITECTURES[name]


def _network(architecture: _Architecture, num_classes: int | None) -> nn.Layer:
    """Build the network with whatever weights its constructor gives."""
    num_classes = num_classes or architecture.num_classes
    if architecture.model == "SeaFormer":
        from segrt_export import seaformer

        return seaformer.SeaFormer(seaformer.VARIANTS[architecture.backbone], num_classes)
    try:
        from paddleseg import models
    except ModuleNotFoundError as error:
        raise ImportError(
            f"no module {error.name!r}: pip install 'segrt[export]' && pip install --no-deps paddleseg==2.8.0"
        ) from error
    backbone = getattr(models, architecture.backbone)(**architecture.backbone_options)
    network: nn.Layer = getattr(models, architecture.model)(
        num_classes, backbone, **architecture.options
    )
    return network


def _randomise(network: nn.Layer, rng: np.random.Generator) -> None:
    """Draw every parameter anew, so that nothing depends on Paddle's own random state."""
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
                # ReLU cuts off half of a signal around zero, and the next batch norm stretches what is left: float
                # rounding then grows layer by layer, as it does not in trained networks. So most stays above zero.
                values = rng.normal(1.0, 0.1, shape)
            elif key in ("_mean", "_variance"):
                values = np.full(shape, key == "_variance")  # measured later
            else:
                # Not zero: a converter that drops or misplaces a bias must change the labels.
                values = rng.normal(0, 0.1, shape)
            parameter.set_value(values.astype(np.float32))


def _scenes(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Make up scenes with about the brightness, contrast and edges of street photographs.

    Smooth random fields, whose spectra fall as a power of the frequency (photographs': Field, JOSA A 4, 1987), divide a
    scene into regions; each gets its colour, and all a texture. Brightness differs much between scenes, as between
    day and dusk: a random network amplifies whatever lies outside of what its batch norms have seen.

    Returns:
        float32, (_SCENES, 3, _HEIGHT, _WIDTH), normalised as the networks want it: in [-1, 1].
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
    """Set a 1x1 convolution's weights so that no class wins everywhere. Runs just before the layer does.

    Each class's weights are made orthogonal to every scene's mean feature, so that its logit has mean zero in each (a
    layer without bias allows no other way), and scaled to `_LOGIT_SPREAD`.
    """
    features = inputs[0].numpy().astype(np.float64).reshape(_SCENES, inputs[0].shape[1], -1)
    weights = classifier.weight.numpy()[:, :, 0, 0].astype(np.float64)
    means, _ = np.linalg.qr(features.mean(2).T)
    weights -= (weights @ means) @ means.T
    weights *= _LOGIT_SPREAD / (weights @ features).std((0, 2))[:, None]
    classifier.weight.set_value(weights[:, :, None, None].astype(np.float32))


def _calibrate(network: nn.Layer, classifiers: Sequence[str], rng: np.random.Generator) -> None:
    """Measure batch-norm statistics and set the classifiers, in one pass over the scenes."""
    import paddle
    from paddle import nn

    layers = dict(network.named_sublayers())
    norms = [layer for layer in layers.values() if isinstance(layer, nn.BatchNorm2D)]
    network.eval()  # no dropout, no heads that serve training only
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm._momentum = (
            0.0  # take this pass's statistics whole, where training would mix in a tenth
        )
    hooks = [layers[path].register_forward_pre_hook(_separate_classes) for path in classifiers]
    with paddle.no_grad():
        network(paddle.to_tensor(_scenes(rng)))
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm._momentum = momentum
    network.eval()


def _sane_network(architecture: _Architecture, num_classes: int | None, seed: int) -> nn.Layer:
    """Build the network with weights that are random, the same for the same seed, and sane."""
    rng = np.random.default_rng(seed)
    shrunk = replace(architecture, options={**architecture.options, **architecture.shrunk_options})
    stand_in = _network(shrunk, num_classes)
    _randomise(stand_in, rng)
    _calibrate(stand_in, architecture.classifiers, rng)
    if shrunk == architecture:
        return stand_in
    network = _network(architecture, num_classes)
    network.set_state_dict(stand_in.state_dict())
    network.eval()
    return network


def _write_program(name: str, num_classes: int, seed: int, folder: Path) -> None:
    """Write `inference.json` or `inference.pdmodel`, whichever this process is set to, and `inference.pdiparams`."""
    import paddle
    from paddle import nn

    class LabelMap(nn.Layer):
        """The network with the argmax that PaddleSeg's own export appends."""

        def __init__(self, network: nn.Layer) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return paddle.argmax(self.network(x)[0], axis=1, dtype="int32")

    device = paddle.get_device()
    paddle.set_device("cpu")  # the same weights, whether a GPU is here or not
    try:
        with paddle.utils.unique_name.guard():  # names count from zero, so one seed gives one file
            network = _sane_network(_architecture(name), num_classes, seed)
            if not _can_write("json"):
                _trace_as_paddle_2(network)
            spec = paddle.static.InputSpec([None, 3, None, None], "float32", name="x")
            label_map = LabelMap(network)
            label_map.eval()
            paddle.jit.save(label_map, str(folder / "inference"), input_spec=[spec])
    finally:
        paddle.set_device(device)


def _trace_as_paddle_2(network: nn.Layer) -> None:
    """Go round what Paddle 3 can't trace into the old form any more, both in PP-LiteSeg: size checks and sigmoid."""
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
    paddle.nn.functional.sigmoid = sigmoid  # in a process that writes one program and ends


def _can_write(format: Format) -> bool:
    """Whether this process's Paddle writes that form; it is set once, when Paddle is first imported."""
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
        "import json, pathlib, sys; from segrt_export import untrained; "
        "*rest, folder = json.loads(sys.argv[1]); untrained._write_program(*rest, pathlib.Path(folder))"
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
            f"writing {name} as {format} failed (exit status {child.returncode}):\n{child.stderr[-2000:]}"
        )


def _write_config(name: str, class_names: Sequence[str], format: Format, folder: Path) -> None:
    """Write `inference.yml`, which describes the model to PaddleX and to segrt."""
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
        prog="python -m segrt_export.untrained", description="Write an untrained twin."
    )
    parser.add_argument("name", choices=NAMES, metavar="name", help="; ".join(NAMES))
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-classes", type=int)
    parser.add_argument("--format", choices=("json", "pdmodel"), default="json")
    options = parser.parse_args()
    print(build(**vars(options)))


if __name__ == "__main__":
    _main()
