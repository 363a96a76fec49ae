"""`segrt doctor`: what this machine offers, its problems, and the commands that fix them."""

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


def doctor(machine: Catalog | None = None) -> bool:
    """Print the report.

    Example:
        >>> doctor()
        CPU       AMD EPYC 9B14, 2 usable cores, avx2 avx512f avx512_vnni avx512_bf16
        ...
        True

    Args:
        machine: the hardware and software to report on; None for this machine.

    Returns:
        bool: whether any provider can run.
    """
    out = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False)
    try:
        machine = machine or catalog.read()
    except SegrtError as error:  # no ONNX Runtime
        out.print(f"[red]problem[/]  {escape(str(error))}")
        return False
    _print_hardware(out, machine)
    table = Table("provider", "from", "state", box=None, pad_edge=False)
    known = {backend.provider for backend in BACKENDS.values()}
    for provider in machine.providers:
        if provider.name not in known and not provider.problem:
            continue  # such as AzureExecutionProvider, which runs no models here
        state = f"can't run: {provider.problem}" if provider.problem else "ready"
        table.add_row(provider.name, provider.plugin or "built in", escape(state))
    out.print(table)
    can_run = False
    for mode in Mode:
        try:
            plan = plans(None, mode, machine)[0]
            can_run = True
            out.print(f"{mode.value} mode would run {plan}")
        except SegrtError as error:
            out.print(f"{mode.value} mode: {escape(str(error))}")
    for problem in problems(machine):
        out.print(f"[yellow]problem[/]  {escape(problem)}")
    return can_run


def problems(machine: Catalog) -> list[str]:
    """The problems of a machine, each with the command that fixes it.

    Example:
        >>> problems(catalog.read())
        []
    """
    messages = []
    if names := machine.collisions:
        messages.append(
            f"{' and '.join(names)} overwrite each other: run  pip uninstall -y {' '.join(names)}  "
            "and then  pip install 'segrt[cpu]'  (or openvino, or gpu)"
        )
    opencv = [name for name, _ in machine.versions if name.startswith("opencv-")]
    if len(opencv) > 1:
        keep = min(opencv, key=lambda name: "headless" in name)
        messages.append(
            f"{' and '.join(opencv)} overwrite each other, so that cv2.imshow may fail: run  "
            f"pip uninstall -y {' '.join(opencv)}  and then  pip install {keep}  (segrt works with "
            "any one of them)"
        )
    for provider in machine.providers:
        messages += [
            f"{provider.name}: {library} is missing; {_fix(machine, provider, library)}"
            for library in provider.missing
        ]
        if provider.error and not _for_the_cpu_beside_a_gpu(machine, provider):
            fix = provider.fix or _install(machine, provider)
            messages.append(f"{provider.name}: {provider.error}; run  {fix}")
    cuda = machine.provider("CUDAExecutionProvider")
    if machine.gpus and not cuda:
        messages.append(
            f"{machine.gpus[0].name} is not used: the installed ONNX Runtime has no "
            f"CUDAExecutionProvider; run  {machine.install('segrt[gpu]')}"
        )
    elif not cuda and _lacks_openvino(machine):
        messages.append(
            "OpenVINO, the fastest backend on this CPU, is not installed: run  "
            f"{machine.install('segrt[openvino]')}"
        )
    return messages


def _print_hardware(out: Console, machine: Catalog) -> None:
    cpu = machine.cpu
    features = " ".join(name for name in _FEATURES if name in cpu.features)
    cores = "1 usable core" if cpu.cores == 1 else f"{cpu.cores} usable cores"
    out.print(f"CPU       {escape(cpu.name)}, {cores}, {features or 'no special instructions'}")
    for index, gpu in enumerate(machine.gpus):
        capability = ".".join(map(str, gpu.compute_capability))
        out.print(
            f"GPU {index}     {escape(gpu.name)}, compute capability {capability}, "
            f"{gpu.memory_mb} MiB"
        )
    if not machine.gpus:
        out.print("GPU       none usable by CUDA")
    out.print(f"wheels    {', '.join(f'{name} {version}' for name, version in machine.versions)}")


def _lacks_openvino(machine: Catalog) -> bool:
    exists = machine.has_openvino and machine.cpu.gains_by_openvino
    return exists and not machine.provider("OpenVINOExecutionProvider")


def _for_the_cpu_beside_a_gpu(machine: Catalog, provider: Provider) -> bool:
    """Whether fixing the provider would remove the runtime of a GPU that works."""
    cuda = machine.provider("CUDAExecutionProvider")
    on_gpu = bool(machine.gpus and cuda and not cuda.problem)
    return on_gpu and provider.name == "OpenVINOExecutionProvider"


def _fix(machine: Catalog, provider: Provider, library: str) -> str:
    if library.startswith("libcuda.so"):
        return "it is part of the NVIDIA driver: install that"
    return f"run  {_install(machine, provider)}"


def _install(machine: Catalog, provider: Provider) -> str:
    """The command that installs a provider again; by default, the plugin that registers it."""
    for backend in BACKENDS.values():
        if backend.provider == provider.name:
            return machine.install(backend.install)
    return f"pip install --upgrade onnxruntime {provider.plugin.replace('_', '-')}"
