"""Runs paddle2onnx in a child process, because it aborts its process on unsupported operators."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from segrt.errors import ExportError
from segrt_export.requirements import require

OPSET = 17
"""Default ONNX operator set."""
TIMEOUT_S = 600
"""Seconds after which a conversion is stopped."""


def convert(program: Path, params: Path, onnx_file: Path, *, opset: int = OPSET) -> None:
    """Convert a Paddle 3 program to ONNX with paddle2onnx, without its optimiser.

    Example:
        >>> convert(Path("inference.json"), Path("inference.pdiparams"), Path("model.onnx"))

    Raises:
        ExportError: the converter failed, was killed or took longer than `TIMEOUT_S`; the message
            contains the relevant line of its output.
        MissingExtraError: paddle2onnx or paddlepaddle is not installed.
    """
    require("paddle2onnx")
    run_child(__name__, "paddle2onnx", "convert", program, params, onnx_file, str(opset))
    if not onnx_file.is_file():
        raise ExportError(f"paddle2onnx wrote no file for {program}")


def translate(program: Path, params: Path, folder: Path) -> Path:
    """Translate a Paddle 2 program (`.pdmodel`) to the Paddle 3 format.

    Returns:
        Path: `inference.json` in `folder`, next to `inference.pdiparams`.

    Raises:
        ExportError: Paddle can't read the program.
        MissingExtraError: paddlepaddle is not installed.
    """
    require("paddle")
    run_child(__name__, "paddle2onnx", "translate", program, params, folder / "inference")
    return folder / "inference.json"


def failure_reason(output: str) -> str:
    """The line of a converter's output that states the error; by default its last line.

    Example:
        >>> failure_reason("start\\n[ERROR] no such operator\\nlast")
        '[ERROR] no such operator'
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output.splitlines()]
    lines = [line for line in lines if line]
    errors = [
        line for line in lines if re.search(r"\[ERROR\]|Error|not support|only support", line)
    ]
    return (errors or lines or ["no output"])[-1][:300]


def run_child(module: str, tool: str, task: str, source: Path, *arguments: str | Path) -> None:
    """Run a module in a child process, in case the native code that it calls aborts.

    Example:
        >>> run_child("segrt_export.convert", "paddle2onnx", "convert", program, params, file, "17")

    Args:
        module: the module, run as a command.
        tool: what it calls, for errors.
        task: its first argument.
        source: its second argument, the file to work on.
        arguments: its further arguments.

    Raises:
        ExportError: the child failed, was killed or took longer than `TIMEOUT_S`; the message
            contains the relevant line of its output.
    """
    command = [sys.executable, "-m", module, task, str(source), *map(str, arguments)]
    env = dict(
        os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p), GLOG_minloglevel="2"
    )
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"{tool} took longer than {TIMEOUT_S} s to {task} {source} and was stopped"
        ) from None
    if done.returncode > 0:
        status = f"exit status {done.returncode}"
    elif done.returncode < 0:
        status = f"killed by signal {-done.returncode}"
    else:
        return
    reason = failure_reason(done.stdout + done.stderr)
    raise ExportError(f"{tool} could not {task} {source} ({status}): {reason}")


def _main(task: str, program: str, params: str, target: str, opset: str = "") -> None:
    import paddle
    import paddle2onnx

    if task == "translate":
        from paddle2onnx.convert import load_parameter, save_program

        with paddle.pir_utils.OldIrGuard():
            old, *_ = paddle.static.load_inference_model(
                str(Path(program).parent),
                paddle.static.Executor(paddle.CPUPlace()),
                model_filename=Path(program).name,
                params_filename=Path(params).name,
            )
        translated = paddle.pir.translate_to_pir(old.desc)
        load_parameter(translated)
        save_program(translated, target)
        return
    paddle2onnx.export(
        program,
        params,
        save_file=target,
        opset_version=int(opset),
        auto_upgrade_opset=False,
        enable_onnx_checker=True,
        optimize_tool="None",
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
