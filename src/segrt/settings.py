"""What decides a label or the content of a result, by which a job is resumed or refused."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from segrt.files import sha256
from segrt.manifest import Settings
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.request import Request


def settings(
    pipeline: Pipeline, request: Request, reading: Reading, output: dict[str, Any]
) -> Settings:
    """What decides a label or the content of a result, by the name of the option.

    The device, the mode and the batch size are not among it: a job may go on on another machine.
    Each row says where it ran.

    Args:
        pipeline: its model and preprocessing count.
        request: how images are segmented.
        reading: how files are read.
        output: what is saved, by the name of the option.
    """
    return {
        **{name: value for name, (value, _) in pipeline.describe().items()},
        "model_sha256": sha256(pipeline.session.file),
        "palette": hashlib.sha256(pipeline.palette.tobytes()).hexdigest(),
        "target_size": request.target_size,
        "slide": request.window and asdict(request.window),
        **asdict(reading),
        **output,
    }
