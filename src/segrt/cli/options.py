"""Options that several commands share. Each option is defined once; dataclasses become flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Group, Parameter, Token

from segrt import consent
from segrt.backends.memory import limit_memory
from segrt.cli import DASH, interrupts
from segrt.cli.standard import STDOUT
from segrt.config import PIPELINE
from segrt.create import create_pipeline
from segrt.pipeline import Pipeline

INPUTS = Group("Inputs", sort_key=0)
MODEL = Group("Model", sort_key=1)
DEVICE = Group("Device", sort_key=2)
INFERENCE = Group("Inference", sort_key=3)
OUTPUT = Group("Output", sort_key=4)


def _to_save(_: object, tokens: Sequence[Token]) -> Path:
    return STDOUT if tokens[0].value == DASH else Path(tokens[0].value)


DeviceOption: TypeAlias = Annotated[str | None, Parameter(group=DEVICE)]
SavePath: TypeAlias = Annotated[
    Path | None, Parameter(group=OUTPUT, alias="-o", converter=_to_save, n_tokens=1)
]
AsJson: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
Yes: TypeAlias = Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """The options of `create_pipeline`."""

    pipeline: Annotated[str, Parameter(group=MODEL)] = PIPELINE
    """Path of a pipeline YAML."""

    model: Annotated[str | None, Parameter(name=["--model", "--model-name"], group=MODEL)] = None
    """A model listed by `segrt models`; default: the bundled one."""

    model_dir: Annotated[str | None, Parameter(group=MODEL)] = None
    """An .onnx file or its URL, or a folder with an ONNX or Paddle model."""

    palette: Annotated[str | None, Parameter(group=MODEL)] = None
    """voc, distinct, cityscapes, ade20k or camvid; default: the model's."""

    device: DeviceOption = None
    """cpu, gpu, gpu:0, gpu:0,1, ...; default: the best available."""

    mode: Annotated[str | None, Parameter(group=DEVICE)] = None
    """normal (FP32) or high-performance."""

    use_hpip: Annotated[bool, Parameter(group=DEVICE, negative="", show_default=False)] = False
    """Same as --mode high-performance."""

    hpi_config: Annotated[str | None, Parameter(group=DEVICE)] = None
    """JSON with backend, precision, threads or provider_options."""

    engine: Annotated[str | None, Parameter(group=DEVICE)] = None
    """PaddleX's: hpi is high-performance, paddle is normal."""

    max_memory: Annotated[str | None, Parameter(group=DEVICE)] = None
    """Memory limit, such as 2GiB; default: 80% of the machine's."""

    yes: Yes = False
    """Install Paddle (1.9 GB) without asking if a model needs it."""

    def create(self, *, workers: int = 1) -> Pipeline:
        """Load the pipeline."""
        options = asdict(self)
        if options.pop("yes"):
            consent.agree()
        limit_memory(options.pop("max_memory"))
        model = options.pop("model")
        options["use_hpip"] = options["use_hpip"] or None  # without it, the YAML decides
        interrupts.check()
        return create_pipeline(model_name=model, workers=workers, **options)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How images are segmented."""

    target_size: Annotated[str | None, Parameter(group=INFERENCE, allow_leading_hyphen=True)] = None
    """-1 (original size), N (fit inside N x N), or HEIGHT,WIDTH."""

    slide: Annotated[str | None, Parameter(group=INFERENCE)] = None
    """Sliding window: CROP,STRIDE; HEIGHT,WIDTH,DOWN,RIGHT; or model (the model's own)."""

    batch_size: Annotated[int | None, Parameter(group=INFERENCE)] = None
    """Images that run together."""


def first_given(options: Mapping[str, bool]) -> str | None:
    """The first of these that is true."""
    return next((name for name, is_given in options.items() if is_given), None)
