"""The command `segrt`. Each subcommand is a module of its own, imported when it runs."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import segrt
from segrt import consent, verbosity
from segrt.cli import interrupts
from segrt.cli.console import complain, confirm, err
from segrt.errors import ConfigError, SegrtError
from segrt.waiting import Messages

DASH = "\0"
"""What the argument `-` becomes, which cyclopts takes for an option; no argument contains it."""

EPILOGUE = """\
PaddleX's command line works too:

segrt --pipeline semantic_segmentation --input road.png --save_path ./output

segrt --get_pipeline_config semantic_segmentation --save_path ./my_path

segrt --serve --pipeline semantic_segmentation --port 8080
"""

app = App(
    name="segrt",
    version=segrt.__version__,
    help="Semantic segmentation with the PaddleSeg models on ONNX Runtime.",
    help_epilogue=EPILOGUE,
    help_flags=["-h", "--help"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for target, text in {
    "demo:demo": "Segment a sample that comes with segrt, into ./segrt-demo.",
    "predict:predict": "Segment images, and save the results; videos become overlay videos.",
    "geo:geo": "Segment georeferenced scenes of any size; write label rasters.",
    "serve:serve": "Serve a pipeline over HTTP, with PaddleX's API.",
    "web:web": "Write a static web page that runs a model in the browser.",
    "config:config": "Write a pipeline YAML to start from, or print it.",
    "doctor:doctor": "Show what this machine offers, and how to fix each problem.",
    "quantize:quantize": "Make the int8 form of a model, if it keeps its accuracy.",
    "tune:tune": "Find the fastest plan for a model here, for high-performance mode.",
}.items():
    app.command(f"segrt.cli.{target}", help=text, help_epilogue="")
app.command(
    "segrt.cli.models:app",
    name="models",
    help="List the models, with their published accuracy; fetch, share and remove them.",
)
app.register_install_completion_command()


@app.default
def root() -> int:
    """Without arguments, print the help."""
    app.help_print()
    return 2


def as_subcommand(tokens: Sequence[str]) -> list[str]:
    """Rewrite PaddleX's command line as a subcommand; return any other one unchanged.

    Example:
        >>> as_subcommand(["--pipeline", "p.yaml", "--input", "road.png"])
        ['predict', '--show', 'paddlex', '--pipeline', 'p.yaml', '--input', 'road.png']

    Raises:
        ConfigError: `--pipeline` comes without `--input`.
    """
    names = [token.partition("=")[0].replace("_", "-") for token in tokens]
    if "--get-pipeline-config" in names[:1]:
        _, _, value = tokens[0].partition("=")
        return ["config", *([value] if value else []), *tokens[1:]]
    if "--serve" in names and tokens[0].startswith("--"):
        return ["serve", *(token for token in tokens if token != "--serve")]
    if "--pipeline" in names and tokens[0].startswith("--"):
        if "--input" not in names:
            raise ConfigError("--pipeline needs --input: an image or a folder of images")
        return ["predict", "--show", "paddlex", *tokens]
    return list(tokens)


verbosity.add_to(
    app, lambda tokens: [DASH if token == "-" else token for token in as_subcommand(tokens)]
)


def main() -> None:
    """Run the command.

    Errors are one line, with exit status 2 for wrong usage and 1 otherwise. SIGINT (Ctrl-C),
    SIGTERM and SIGHUP end it in good order, with exit status 128 plus the number of the signal.
    """
    interrupts.catch()
    consent.ask_with(confirm)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that its encoding can't hold
    logging.basicConfig(format="%(message)s", handlers=[Messages(err)])
    try:
        status = app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (CycloptsError, ConfigError) as error:
        complain(error)
        sys.exit(2)
    except BrokenPipeError:  # as by `segrt ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (SegrtError, OSError, MemoryError) as error:
        complain(str(error) or "out of memory")
        sys.exit(1)
    except KeyboardInterrupt as stop:
        number = interrupts.received() or signal.SIGINT
        what = "interrupted" if number == signal.SIGINT else f"stopped by signal {number}"
        complain(f"{what}: {stop}" if str(stop) else what)
        sys.exit(128 + number)
    sys.exit(status if isinstance(status, int) else 0)
