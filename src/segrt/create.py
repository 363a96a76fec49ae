"""From the user's configuration to a loaded pipeline."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from segrt import checked_yaml, model_file, paddle_settings, zoo
from segrt import config as configuration
from segrt.backends.session import Session, start_all
from segrt.description import Given
from segrt.errors import ConfigError
from segrt.names import is_url
from segrt.paddle_settings import HPI, PADDLE, Running
from segrt.palette import PaletteLike
from segrt.pipeline import Pipeline
from segrt.types import Device, Mode, shown
from segrt.validation import refuse_unknown

log = logging.getLogger("segrt")

MAX_WORKERS = 64
"""Maximum number of sessions per device."""


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: dict[str, Any] | None = None,
    device: str | None = None,
    use_hpip: bool | None = None,
    hpi_config: Mapping[str, Any] | str | None = None,
    mode: str | None = None,
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    palette: PaletteLike = None,
    transforms: Sequence[Mapping[str, Any]] | None = None,
    bands: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    output: str | None = None,
    workers: int = 1,
    engine: str | None = None,
    engine_config: Mapping[str, Any] | None = None,
    pp_option: Any = None,
    **unknown: NoReturn,
) -> Pipeline:
    """Create a segmentation pipeline.

    Example:
        >>> pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
        >>> for result in pipeline.predict("road.png"):
        ...     result.save_to_img("./output/")

    Args:
        pipeline: "semantic_segmentation", the default, or the path of a pipeline YAML.
        config: the content of such a YAML; wins over `pipeline`, and must name the same pipeline.
        device: "cpu", "gpu:0", "gpu:0,1", ... The pipeline runs there, or this raises; several
            devices share the work. None: GPU 0 if it can run, else the CPU.
        use_hpip: True is the same as mode="high-performance", False as mode="normal".
        hpi_config: settings of high-performance mode that override the chosen plan: a mapping with
            any of backend, precision, threads and provider_options, or the JSON text of one.
            PaddleX's keys are accepted as well.
        mode: "normal" (the default) or "high-performance".
        model_name: a name in the model zoo, which is downloaded and converted on first use (this
            needs the export extra, or `segrt models fetch`); overrides the configuration. If it is
            set nowhere, the bundled model runs.
        model_dir: an `.onnx` file or its http(s) URL, a folder that contains one, or a folder with
            a Paddle inference model, which is converted on first use (this needs the export extra);
            overrides the configuration.
        palette: the class colours: "voc", "distinct", "cityscapes", "ade20k", "camvid", or (R, G,
            B) for each class, from 0 to 255; overrides the configuration. If it is set nowhere,
            label pictures are "voc", and overlays have the model's own colours, else "distinct".
        transforms: how images are prepared, as in `inference.yml`: [{"type": "Normalize", "mean":
            [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}], for example. This and the next
            three override the configuration and what the model says itself; see
            `Pipeline.describe`.
        bands: for a network that takes bands, such as ["red", "green", "blue", "nir"], and not
            pictures: the name of each channel of its input, in order. `transforms`, or the model
            itself, must then state mean and std.
        class_names: the name of each class, in the order of the class ids.
        output: name of the output to use, for a network with several.
        workers: number of model copies per device. Batches then run in parallel and share the CPU
            threads; on a CPU with many cores that is faster than all threads for each in turn.
        engine: as in PaddleX: "hpi" is the same as mode="high-performance"; "paddle",
            "paddle_static" and "onnxruntime" are the same as mode="normal".
        engine_config: as in PaddleX: settings of the engine, in place of `hpi_config` and
            `pp_option`.
        pp_option: as in PaddleX: options of Paddle Inference, in normal mode, as a mapping or a
            PaddlePredictorOption. Device, threads and run mode have the same meaning here, and
            high-performance mode runs modes other than FP32; one warning names other options.
        unknown: other keyword arguments are a TypeError that lists these.

    Returns:
        Pipeline: with its model loaded.

    Raises:
        ConfigError: an argument or the configuration is invalid.
        DeviceError: the device can't run here.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: the model is unknown, missing or damaged.
        DownloadError: the model can't be downloaded, or is not the expected file.
        ExportError: the model can't be converted.
        TypeError: there is no such argument.
    """
    arguments = {key: value for key, value in locals().items() if key != "unknown"}
    refuse_unknown(create_pipeline, unknown)
    if pipeline is None and config is None:
        pipeline = configuration.PIPELINE
    settings = configuration.load(pipeline, config)
    module = settings.module
    running = _running(
        settings, mode, _Level(use_hpip, hpi_config, engine, engine_config), pp_option
    )
    chosen = running.mode or Mode.NORMAL
    requested = device if device is not None else settings.device or running.device
    # Before any model is looked up.
    parsed = None if requested is None else Device.parse(requested)
    path = model_dir or module.model_dir
    name = model_name or module.model_name
    if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(
            f"workers {shown(workers)} is not valid: it must be a whole number from 1 to "
            f"{MAX_WORKERS}"
        )
    preselected = () if path else zoo.get(name or zoo.DEFAULT_MODEL).plans
    file = model_file.resolve(name, path)
    log.debug("pipeline %s, model %s", "config" if config else pipeline, file)
    if path and not is_url(str(path)):
        arguments["model_dir"] = os.path.abspath(path)
    if isinstance(pipeline, (str, Path)) and os.path.isfile(pipeline):
        arguments["pipeline"] = os.path.abspath(pipeline)
    given = Given(
        configuration.parse_transforms(transforms) or module.transforms,
        configuration.parse_bands(bands) or module.bands,
        configuration.parse_class_names(class_names) or module.class_names,
        output or module.output,
    )

    def start(where: Device | None) -> list[Session]:
        return start_all(
            file,
            device=where,
            mode=chosen,
            preselected=preselected,
            hpi_config=running.hpi,
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
        reopen=partial(create_pipeline, **arguments),
    )


@dataclass(frozen=True)
class _Level:
    """What the arguments, the top of a YAML, or its module say about how to run."""

    use_hpip: bool | None
    hpi_config: object
    engine: str | None
    engine_config: Mapping[str, Any] | None

    @property
    def choice(self) -> str | None:
        """The engine; None leaves it to the next level."""
        if self.engine is not None or self.use_hpip is None:
            return self.engine and paddle_settings.parse_engine(self.engine)
        return HPI if self.use_hpip else PADDLE


def _running(
    settings: configuration.PipelineConfig, mode: str | None, arguments: _Level, pp_option: object
) -> Running:
    """How to run; its mode is set.

    The arguments win over the configuration, its module over its top, and `mode` over the rest.
    """
    module, top = (
        _Level(level.use_hpip, level.hpi_config, level.engine, level.engine_config)
        for level in (settings.module, settings)
    )
    named = Mode.parse(mode) if mode is not None else None
    if named is Mode.NORMAL and arguments.choice == HPI:
        what = "use_hpip=True" if arguments.engine is None else f"engine={HPI!r}"
        raise ConfigError(f"{what} and mode={mode!r} disagree: give one of them")
    if named is None and arguments.choice is None:
        named = settings.mode
    engine = arguments.choice or module.choice or top.choice or PADDLE
    if named is not None and (named is Mode.HIGH_PERFORMANCE) != (engine == HPI):
        engine = HPI if named is Mode.HIGH_PERFORMANCE else PADDLE
    outer = arguments.engine_config
    if outer is None and not (arguments.choice or module.choice):
        outer = top.engine_config
    engine_config = _merged(outer, module.engine_config, arguments.engine_config is not None)
    hpi_config = _merged(
        top.hpi_config if arguments.hpi_config is None else arguments.hpi_config,
        module.hpi_config,
        arguments.hpi_config is not None,
    )
    if engine != HPI and arguments.hpi_config:
        raise ConfigError(
            "hpi_config says nothing in normal mode: add mode='high-performance', or leave it out"
        )
    hpi = paddle_settings.parse_hpi(hpi_config)
    if engine_config is not None:
        found = paddle_settings.parse_engine_config(engine, engine_config)
    else:
        found = hpi if engine == HPI else paddle_settings.parse_pp_option(pp_option)
    if pp_option is not None and (engine == HPI or engine_config is not None):
        found.ignored["pp_option"] = "hpi_config or engine_config applies"
    if named is Mode.NORMAL and found.mode is not None:
        raise ConfigError(f"{found.hpi.precision} does not run in normal mode: leave out the mode")
    found.warn()
    return replace(found, mode=Mode.HIGH_PERFORMANCE if engine == HPI else found.mode)


def _merged(outer: object, inner: object, outer_wins: bool) -> Any:
    """Settings of two levels; of two values for one key, the inner one unless `outer_wins`."""
    if isinstance(outer, str):
        outer = checked_yaml.parse(outer, "hpi_config")
    if not isinstance(outer, Mapping) or not isinstance(inner, Mapping):
        return inner if outer is None else outer
    return {**inner, **outer} if outer_wins else {**outer, **inner}
