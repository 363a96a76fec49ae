"""From the user's configuration to a loaded pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segrt import config as configuration
from segrt import model_file, zoo
from segrt.backends.plan import HpiConfig
from segrt.backends.session import Session, start_all
from segrt.description import Given
from segrt.errors import ConfigError
from segrt.pipeline import Pipeline
from segrt.types import Device, Mode, shown

MAX_WORKERS = 64
"""Maximum number of sessions per device."""


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: dict[str, Any] | None = None,
    device: str | None = None,
    use_hpip: bool = False,
    hpi_config: dict[str, Any] | str | None = None,
    mode: str | None = None,
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    palette: object = None,
    transforms: Sequence[Mapping[str, Any]] | None = None,
    class_names: Sequence[str] | None = None,
    output: str | None = None,
    workers: int = 1,
) -> Pipeline:
    """Create a segmentation pipeline.

    Example:
        >>> pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
        >>> for result in pipeline.predict("road.png"):
        ...     result.save_to_img("./output/")

    Args:
        pipeline: "semantic_segmentation", or the path of a pipeline YAML. Optional if a model is
            specified.
        config: the content of such a YAML; wins over `pipeline`, and must name the same pipeline.
        device: "cpu", "gpu:0", "gpu:0,1", ... The pipeline runs there, or this raises; several
            devices share the work. None: GPU 0 if it can run, else the CPU.
        use_hpip: the same as mode="high-performance".
        hpi_config: settings of high-performance mode that override the chosen plan: a mapping with
            any of backend, precision, threads and provider_options, or the JSON text of one.
        mode: "normal" (the default) or "high-performance".
        model_name: a name in the model zoo, which is downloaded and converted on first use (this
            needs the export extra, or `segrt models fetch`); overrides the configuration. If it is
            set nowhere, the bundled model runs.
        model_dir: an `.onnx` file or its http(s) URL, a folder that contains one, or a folder with
            a Paddle inference model, which is converted on first use (this needs the export extra);
            overrides the configuration.
        palette: the class colours: "voc", "cityscapes", "ade20k", "camvid", or (R, G, B) for each
            class, from 0 to 255; overrides the configuration. If it is set nowhere, the model's
            own, else voc.
        transforms: how images are prepared, as in `inference.yml`: [{"type": "Normalize", "mean":
            [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}], for example. This and the next
            two override the configuration and what the model says itself; see
            `Pipeline.describe`.
        class_names: the name of each class, in the order of the class ids.
        output: name of the output to use, for a network with several.
        workers: number of model copies per device. Batches then run in parallel and share the CPU
            threads; on a CPU with many cores that is faster than all threads for each in turn.

    Returns:
        Pipeline: with its model loaded.

    Raises:
        ConfigError: an argument or the configuration is invalid.
        DeviceError: the device can't run here.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: the model is unknown, missing or damaged.
        DownloadError: the model can't be downloaded, or is not the expected file.
        ExportError: the model can't be converted.
    """
    if pipeline is None and config is None and (model_name or model_dir):
        pipeline = configuration.PIPELINE
    settings = configuration.load(pipeline, config)
    module = settings.module
    chosen = _mode(settings.mode, mode, use_hpip=use_hpip, configured_hpip=settings.use_hpip)
    if hpi_config and chosen is Mode.NORMAL:
        raise ConfigError(
            "hpi_config says nothing in normal mode: add mode='high-performance', or leave it out"
        )
    requested = device or settings.device
    parsed = Device.parse(requested) if requested else None  # before any model is looked up
    hpi = HpiConfig.parse(settings.hpi_config if hpi_config is None else hpi_config)
    path = model_dir or module.model_dir
    name = model_name or module.model_name
    if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(
            f"workers {shown(workers)} is not valid: it must be a whole number from 1 to "
            f"{MAX_WORKERS}"
        )
    preselected = () if path else zoo.get(name or zoo.DEFAULT_MODEL).plans
    file = model_file.resolve(name, path)
    given = Given(
        configuration.parse_transforms(transforms) or module.transforms,
        configuration.parse_class_names(class_names) or module.class_names,
        output or module.output,
    )

    def start(where: Device | None) -> list[Session]:
        return start_all(
            file,
            device=where,
            mode=chosen,
            preselected=preselected,
            hpi_config=hpi,
            size=module.target_size if isinstance(module.target_size, tuple) else None,
            given=given,
            workers=workers,
        )

    return Pipeline(
        *start(parsed),
        start=start,
        batch_size=module.batch_size,
        target_size=module.target_size,
        palette=module.palette if palette is None else palette,
        slide=module.slide,
        mode=chosen,
    )


def _mode(
    configured: Mode | None, mode: str | None, *, use_hpip: bool, configured_hpip: bool
) -> Mode:
    """The arguments win over the configuration, and `mode` over `use_hpip`."""
    if mode is not None:
        parsed = Mode.parse(mode)
        if use_hpip and parsed is not Mode.HIGH_PERFORMANCE:
            raise ConfigError(f"use_hpip=True and mode={mode!r} disagree: give one of them")
        return parsed
    if use_hpip:
        return Mode.HIGH_PERFORMANCE
    return configured or (Mode.HIGH_PERFORMANCE if configured_hpip else Mode.NORMAL)
