"""`segrt doctor`: what this machine offers, its problems, and the commands that fix them."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segrt.backends import catalog
from segrt.backends.catalog import Catalog, Provider
from segrt.backends.plan import BACKENDS, plans
from segrt.errors import SegrtError
from segrt.types import Mode

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def doctor(machine: Catalog | None = None, *, as_json: bool = False) -> bool:
    """Print the report.

    Example:
        >>> doctor()
        CPU       AMD EPYC 9B14, 2 usable cores, avx2 avx512f avx512_vnni avx512_bf16
        ...
        True

    Args:
        machine: the hardware and software to report on; None for this machine.
        as_json: print what `report` returns, on one line.

    Returns:
        bool: whether any provider can run.
    """
    out = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False)
    try:
        machine = machine or catalog.read()
    except SegrtError as error:  # no ONNX Runtime
        if as_json:
            print(json.dumps({"can_run": False, "problems": [str(error)]}))
        else:
            out.print(f"[red]problem[/]  {escape(str(error))}")
        return False
    found = report(machine)
    if as_json:
        print(json.dumps(found))
    else:
        _print(out, found)
    return bool(found["can_run"])


def report(machine: Catalog) -> dict[str, Any]:
    """What a machine offers, for JSON.

    Example:
        >>> report(catalog.read())["modes"]["normal"]
        'CPUExecutionProvider fp32 on cpu, 2 threads'

    Returns:
        dict: `can_run`; `cpu` with `name`, `cores` and `features`; `gpus` with `name`,
            `compute_capability` and `memory_mb`; `wheels`, the version of each; `providers` with
            `name`, `source` and `problem` ("" if it can run); `modes`, what each would run, or why
            it can't; and `problems`, each with the command that fixes it.
    """
    known = {backend.provider for backend in BACKENDS.values()}
    modes, can_run = {}, False
    for mode in Mode:
        try:
            plan = plans(None, mode, machine)[0]
            modes[mode.value] = str(plan)
            if plan.first:
                modes[mode.value] += f"; {plan.first.provider} for image sizes that don't recur"
            can_run = True
        except SegrtError as error:
            modes[mode.value] = f"can't run: {error}"
    return {
        "can_run": can_run,
        "cpu": {
            "name": machine.cpu.name,
            "cores": machine.cpu.cores,
            "features": [name for name in _FEATURES if name in machine.cpu.features],
        },
        "gpus": [
            {
                "name": gpu.name,
                "compute_capability": ".".join(map(str, gpu.compute_capability)),
                "memory_mb": gpu.memory_mb,
            }
            for gpu in machine.gpus
        ],
        "wheels": dict(machine.versions),
        "providers": [
            {
                "name": provider.name,
                "source": provider.plugin or "built in",
                "problem": provider.problem,
            }
            for provider in machine.providers
            # Others, such as AzureExecutionProvider, run no models here.
            if provider.name in known or provider.problem
        ],
        "modes": modes,
        "problems": problems(machine),
    }


def _print(out: Console, found: dict[str, Any]) -> None:
    cpu, gpus = found["cpu"], found["gpus"]
    cores = "1 usable core" if cpu["cores"] == 1 else f"{cpu['cores']} usable cores"
    features = " ".join(cpu["features"]) or "no special instructions"
    out.print(f"CPU       {escape(cpu['name'])}, {cores}, {features}")
    for index, gpu in enumerate(gpus):
        out.print(
            f"GPU {index}     {escape(gpu['name'])}, compute capability "
            f"{gpu['compute_capability']}, {gpu['memory_mb']} MiB"
        )
    if not gpus:
        out.print("GPU       none usable by CUDA")
    wheels = (f"{name} {version}" for name, version in found["wheels"].items())
    out.print(f"wheels    {', '.join(wheels)}")
    table = Table("provider", "from", "state", box=None, pad_edge=False)
    for provider in found["providers"]:
        problem = provider["problem"]
        state = f"can't run: {problem}" if problem else "ready"
        table.add_row(provider["name"], provider["source"], escape(state))
    out.print(table)
    for mode, plan in found["modes"].items():
        out.print(
            f"{mode} mode would run {escape(plan)}"
            if "can't run: " not in plan
            else f"{mode} mode {escape(plan)}"
        )
    for problem in found["problems"]:
        out.print(f"[yellow]problem[/]  {escape(problem)}")


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
