"""`segrt demo`: segment the bundled sample with the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path

from segrt import package_data
from segrt.cli import shares
from segrt.cli.console import say
from segrt.create import create_pipeline
from segrt.errors import SegrtError
from segrt.files import write_atomic
from segrt.waiting import is_quiet

FOLDER = Path("segrt-demo")
"""Where the results are saved."""

NEXT = """\
Next:
  segrt predict YOUR_PHOTO.jpg       your own photo, into ./output
  segrt models                       the models, with their accuracy
  segrt doctor                       what runs on this machine, and what is missing"""


def demo() -> None:
    """Segment a sample image that comes with segrt, into ./segrt-demo. No file is needed."""
    sample = package_data.path(package_data.SAMPLE)
    write_atomic(FOLDER / sample.name, sample.read_bytes())  # to try other commands with
    pipeline = create_pipeline("semantic_segmentation")
    result = next(iter(pipeline.predict(sample)))
    if result.error is not None:
        raise SegrtError(str(result.error))
    labels = result.save_to_json(FOLDER, label_format="rle")
    files = [*result.save_to_img(FOLDER), labels, result.save_overlay(FOLDER)]
    if not is_quiet():
        print("\n".join(shares.bars(result.areas(), sys.stdout.encoding or "utf-8")))
    say(f"\n{result.model_name} on {result.provider} {result.precision}, saved:")
    for file in files:
        say(f"  {file}")
    say(f"\n{NEXT}")
