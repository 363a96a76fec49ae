"""`segrt doctor`: what this machine offers, what is wrong with it, and the command that mends each."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segrt.backends import catalog
from segrt.backends.catalog import Catalog, Provider
from segrt.backends.plan import BACKENDS, plans
from segrt.errors import SegrtError
from segrt.types import Mode

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def doctor(here: Catalog | None = None) -> bool:
    """Print it all.

    Args:
        here: what to talk about; None for this machine.

    Returns:
        bool: whether anything can run.
    """
    out = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False)
    try:
        here = here or catalog.read()
    except SegrtError as error:  # no ONNX Runtime
        out.print(f"[red]problem[/]  {escape(str(error))}")
        return False
    features = [name for name in _FEATURES if name in here.cpu.features]
    out.print(
        f"CPU       {escape(here.cpu.name)}, {here.cpu.cores} usable cores, {' '.join(features) or 'plain'}"
    )
    for index, gpu in enumerate(here.gpus):
        generation = ".".join(map(str, gpu.compute_capability))
        out.print(
            f"GPU {index}     {escape(gpu.name)}, compute capability {generation}, {gpu.memory_mb} MiB"
        )
    if not here.gpus:
        out.print("GPU       none that CUDA can use")
    out.print(f"wheels    {', '.join(f'{name} {version}' for name, version in here.versions)}")
    table = Table("provider", "from", "state", box=None, pad_edge=False)
    for provider in here.providers:
        state = f"can't run: {provider.problem}" if provider.problem else "ready"
        table.add_row(provider.name, provider.plugin or "built in", escape(state))
    out.print(table)
    runs = False
    for mode in Mode:
        try:
            plan = plans(None, mode, here)[0]
            runs = True
            out.print(f"{mode.value} mode would run {plan}")
        except SegrtError as error:
            out.print(f"{mode.value} mode: {escape(str(error))}")
    for problem in problems(here):
        out.print(f"[yellow]problem[/]  {escape(problem)}")
    return runs


def problems(here: Catalog) -> list[str]:
    """What is wrong, each with the command that mends it."""
    found = []
    if names := here.collisions:
        found.append(
            f"{' and '.join(names)} overwrite each other: run  pip uninstall -y {' '.join(names)}  and then "
            "pip install 'segrt[cpu]'  (or gpu, or openvino)"
        )
    for provider in here.providers:
        found += [
            f"{provider.name}: {library} is missing; {_fix(provider, library)}"
            for library in provider.missing
        ]
        if provider.error:
            mend = (
                provider.fix
                or f"pip install --upgrade onnxruntime {provider.plugin.replace('_', '-')}"
            )
            found.append(f"{provider.name}: {provider.error}; run  {mend}")
    if here.gpus and not here.provider("CUDAExecutionProvider"):
        found.append(
            f"{here.gpus[0].name} is not used: the installed ONNX Runtime has no CUDAExecutionProvider; run  "
            "pip uninstall -y onnxruntime onnxruntime-openvino  and then  pip install 'segrt[gpu]'"
        )
    if not here.provider("OpenVINOExecutionProvider"):
        found.append(
            "OpenVINO is not here, the fastest backend on most x86 CPUs: run  pip install 'segrt[cpu]'"
        )
    return found


def _fix(provider: Provider, library: str) -> str:
    if library.startswith("libcuda.so"):
        return "it comes with the NVIDIA driver: install that"
    return f"run  {next(row.install for row in BACKENDS.values() if row.provider == provider.name)}"
