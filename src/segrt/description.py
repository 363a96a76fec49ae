"""What is known of a model, and from where: everything that decides a label has a source.

The sources, first to last: arguments and pipeline YAML, segrt's metadata in the file,
configurations next to it, the model zoo for a model of that name, and a default, which is used with
a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segrt import network, zoo
from segrt.errors import ModelError
from segrt.metadata import ModelMeta
from segrt.model_configs import huggingface, mmdeploy, paddle
from segrt.model_configs.stated import Stated
from segrt.network import Input, Output
from segrt.preprocess import Normalize, Transforms

log = logging.getLogger("segrt")

_READERS = {
    "inference.yml": paddle.inference_yml,
    "deploy.yaml": paddle.deploy_yaml,
    "config.json": huggingface.model_config,
    "preprocessor_config.json": huggingface.preprocessor_config,
    "pipeline.json": mmdeploy.pipeline_json,
    "deploy.json": mmdeploy.deploy_json,
}


@dataclass(frozen=True)
class Given:
    """What the caller says of a model; it wins over all other sources.

    Attributes:
        transforms: as in `segrt.preprocess.Transforms.parse`.
        bands: names of the input's channels, as in `segrt.metadata.ModelMeta`.
        class_names: in the order of the class ids.
        output: name of the output to use, for networks with several.
    """

    transforms: tuple[Mapping[str, Any], ...] | None = None
    bands: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    output: str | None = None


NOTHING = Given()


@dataclass(frozen=True)
class Description:
    """A model, with the source of each value.

    Attributes:
        meta: the values, complete: each class has a name.
        origins: the source of each value that decides a label, by name.
        input: the image input.
        output: the output that becomes labels.
    """

    meta: ModelMeta
    origins: Mapping[str, str]
    input: Input
    output: Output

    @property
    def transforms(self) -> Transforms:
        """The preprocessing, for the input of the network."""
        parsed = Transforms.parse(
            self.meta.transforms, resize_in=self.meta.resize_in, bands=self.meta.bands
        )
        return replace(parsed, channels=self.input.channels, fixed=self.input.dims[1:])

    def check_pictures(self, reason: str) -> None:
        """Refuse a model that takes bands where there are only pictures.

        Args:
            reason: what needs pictures, for the message.

        Raises:
            ModelError: it takes bands.
        """
        if bands := self.meta.bands:
            raise ModelError(
                f"{self.meta.name} takes {len(bands)} bands ({', '.join(bands)}), no pictures: "
                f"{reason}"
            )

    def values(self) -> dict[str, tuple[str, str]]:
        """Each value that decides a label as text, with its source."""
        meta, given = self.meta, self.origins
        transforms = self.transforms
        n = transforms.normalize
        order = "grey" if self.input.channels == 1 else "RGB" if n.to_rgb else "BGR"
        bands = ", ".join(meta.bands)
        steps = ", ".join(map(repr, transforms.steps)) or "the size of the image"
        fixed = [str(side) if side else "any" for side in self.input.dims]
        form = "two classes from one channel" if self.output.channels == 1 else meta.output
        where = "source image" if meta.interpolate_to == "source" else "inference size"
        names = ", ".join(meta.class_names[:8]) + (", ..." if len(meta.class_names) > 8 else "")
        pre, graph = given["transforms"], "the graph"
        ignored = "none" if meta.ignore_index is None else str(meta.ignore_index)
        return {
            "model": (meta.name, given["name"]),
            "input": (f"{self.input.name}: {np.dtype(self.input.dtype)}", graph),
            "batch, height, width": (" x ".join(fixed), graph),
            "channel order": (bands, given["bands"]) if bands else (order, pre),
            "size": (steps, pre),
            "scale": (f"{n.scale:.6g}", pre),
            "mean": (_numbers(n.mean), pre),
            "std": (_numbers(n.std), pre),
            "output": (f"{self.output.name}: {form}", given["output"]),
            "labels at": (where, given["interpolate_to"]),
            "classes": (f"{len(meta.class_names)}: {names}", given["class_names"]),
            "ignore index": (ignored, given["ignore_index"]),
        }


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def describe(
    file: Path,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    metadata: str | None,
    given: Given = NOTHING,
    config: Path | None = None,
) -> Description:
    """Find out what a model needs and gives, or refuse it.

    Args:
        file: the `.onnx` file.
        inputs: ONNX Runtime's description of its inputs.
        outputs: likewise, of its outputs.
        metadata: segrt's metadata in the file.
        given: what the caller says.
        config: a configuration to read instead of those next to the file.

    Raises:
        ModelError: segrt can't run it, or two sources contradict each other.
    """
    configs = [stated for stated in _read_configs(file, config) if stated.values]
    meta = ModelMeta.loads(metadata, file=str(file)) if metadata else None
    sources = [Stated(f"the metadata of {file.name}", _of(meta))] if meta else []
    ours = {
        key for key in ("transforms", "bands", "class_names") if getattr(given, key) is not None
    }
    merged, origins = merge([*sources, *configs], file, ours, given.bands)
    if given.bands is not None:
        merged["bands"], origins["bands"] = given.bands, "bands="
    bands = merged.get("bands", ())
    node = network.image_input(inputs, file, len(bands))
    if not bands and node.channels not in (1, 3):
        raise ModelError(
            f"{file} takes {node.channels} channels, and nothing says which bands they are: set "
            "bands to their names, in order, and transforms to a Normalize with mean and std"
        )
    merged.setdefault("name", file.stem)
    origins.setdefault("name", "the file name")
    if meta:
        output, form, classes = network.stated(outputs, meta, file, given.output)
    else:
        names = given.class_names or merged.get("class_names", ())
        output, form, classes = network.recognised(file, node, outputs, given.output, names)
        _check_output_op(merged.get("output_op"), origins.get("output_op", ""), form, file)
    merged = {key: value for key, value in merged.items() if key in ModelMeta.model_fields}
    merged["output"] = form
    origins["output"] = "output=" if given.output else origins.get("output", "the graph")
    if given.transforms is not None:
        merged |= {"transforms": given.transforms, "resize_in": "uint8"}
        origins["transforms"] = "transforms="
    elif "transforms" not in merged and bands:
        raise ModelError(
            f"{file} does not say how its {len(bands)} bands are prepared: set transforms to a "
            "Normalize with scale, mean and std"
        )
    elif "transforms" not in merged:
        merged["transforms"], text = _default(node)
        origins["transforms"] = "default"
        log.warning(
            "%s does not say how images are prepared: %s; set transforms to change it", file, text
        )
    _name_classes(merged, origins, given, classes, file)
    for key in ("interpolate_to", "ignore_index"):
        origins.setdefault(key, "default")
    final = ModelMeta(**merged)
    description = Description(final, origins, node, output)
    _check(description, file)
    return description


def _read_configs(file: Path, config: Path | None) -> Iterator[Stated]:
    """The configurations next to a file, or above it, if it is in a folder called `onnx`."""
    if config is not None:
        reader = _READERS.get(config.name)
        if reader is None and config.suffix not in (".yml", ".yaml"):
            raise ModelError(f"{config} must be called one of {', '.join(_READERS)}")
        yield (reader or paddle.inference_yml)(config)
        return
    folders = [file.parent]
    if file.resolve().parent.name == "onnx":
        folders.append(file.resolve().parent.parent)
    for folder in folders:
        own = file.with_suffix(".yml")
        if folder == file.parent and own.name != "inference.yml" and own.is_file():
            yield paddle.inference_yml(own)
        for name, read in _READERS.items():
            if (folder / name).is_file():
                yield read(folder / name)


def _of(meta: ModelMeta) -> dict[str, Any]:
    values = {key: getattr(meta, key) for key in type(meta).model_fields}
    return {key: value for key, value in values.items() if value not in ((), None)}


_COMPARED = ("bands", "class_names", "ignore_index", "output_op", "reduce_labels")


def merge(
    sources: Sequence[Stated],
    file: Path,
    given: Collection[str] = (),
    bands: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Take the first value of each field, and its source.

    Args:
        sources: what each source states, the first one first.
        file: the model, for messages.
        given: fields to leave out, because the caller gives them.
        bands: the bands that the caller gives; None for those of the first source that states any.

    Raises:
        ModelError: two sources contradict each other, or transforms are invalid.
    """
    if bands is None:
        stating = (stated.values["bands"] for stated in sources if "bands" in stated.values)
        bands = next(stating, ())
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for stated in sources:
        values = {key: value for key, value in stated.values.items() if key not in given}
        if "transforms" in values:
            try:
                theirs = Transforms.parse(values["transforms"], bands=bands)
            except ModelError as error:
                raise ModelError(f"{file}: {stated.source}: {error}") from None
            if "transforms" in merged and theirs != Transforms.parse(
                merged["transforms"], bands=bands
            ):
                raise _contradiction(file, "transforms", origins["transforms"], stated.source)
        for key, value in values.items():
            if key in merged and key in _COMPARED and merged[key] != value:
                raise _contradiction(file, key, origins[key], stated.source)
            if key == "resize_in" and "transforms" in merged:
                continue  # belongs to the transforms
            if key not in merged:
                merged[key], origins[key] = value, stated.source
        if "transforms" in values and origins["transforms"] == stated.source:
            merged["resize_in"] = values.get("resize_in", "uint8")
    return merged, origins


def _contradiction(file: Path, key: str, one: str, other: str) -> ModelError:
    return ModelError(
        f"{file}: {one} and {other} state different {key.replace('_', ' ')}: correct "
        f"one of them, or set {key} yourself"
    )


def _default(node: Input) -> tuple[tuple[dict[str, Any], ...], str]:
    if node.dtype == np.uint8:
        entry = {"type": "Normalize", "scale": 1.0, "mean": 0.0, "std": 1.0}
        return (entry,), "RGB from 0 to 255 is assumed"
    return ({"type": "Normalize"},), "RGB, scaled to -1 to 1 (mean and std 0.5), is assumed"


def _name_classes(
    merged: dict[str, Any],
    origins: dict[str, str],
    given: Given,
    classes: int | None,
    file: Path,
) -> None:
    """Complete the names and the palette, and check their number."""
    count = 2 if classes == 1 else classes
    if given.class_names is not None:
        merged["class_names"], origins["class_names"] = given.class_names, "class_names="
    names = tuple(merged.get("class_names", ()))
    spec = next((s for s in zoo.load().models if s.answers_to(str(merged["name"]))), None)
    if not names and spec and count in (None, len(spec.class_names)):
        names, origins["class_names"] = spec.class_names, "the model zoo"
    if not names:
        numbered = tuple(f"class_{i}" for i in range(count or 256))
        names = ("background", "foreground") if classes == 1 else numbered
        origins["class_names"] = "default"
    if classes == 1 and len(names) == 1:
        names = ("background", *names)
    if count is not None and len(names) != count:
        raise ModelError(
            f"{origins['class_names']} has {len(names)} class name"
            f"{'s' if len(names) != 1 else ''} for the {count} classes of {file}: name each class, "
            "the background included"
        )
    merged["class_names"] = names
    if not merged.get("palette") and spec and names == spec.class_names:
        merged["palette"] = spec.palette


def _check_output_op(stated: str | None, origin: str, form: str, file: Path) -> None:
    """Refuse a network of PaddleSeg that does not end as its configuration says."""
    # "none" appends nothing: the network itself may end in anything.
    if stated in ("argmax", "softmax") and (stated == "argmax") != (form == "labels"):
        raise ModelError(
            f"{origin} states output_op: {stated}, but {file} gives {form}: correct one of them"
        )


def _check(description: Description, file: Path) -> None:
    node, origin = description.input, description.origins["transforms"]
    try:
        normalize = description.transforms.normalize
    except ModelError as error:
        raise ModelError(f"{file}: {origin}: {error}") from None
    bands = description.meta.bands
    if (
        node.channels == 1
        and not bands
        and (len(set(normalize.mean)) > 1 or len(set(normalize.std)) > 1)
    ):
        raise ModelError(
            f"{origin} has a mean and std for each of three channels, but {file} takes one"
        )
    count = len(normalize.mean)
    plain = Normalize(scale=1, mean=(0,) * count, std=(1,) * count, to_rgb=normalize.to_rgb)
    if node.dtype == np.uint8 and normalize != plain:
        raise ModelError(
            f"{origin} normalises images, but {file} takes pixels from 0 to 255 (uint8)"
        )
