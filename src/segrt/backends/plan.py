"""How a session runs. A Plan is data; choosing one is a pure function of what is asked for and what is there."""

from __future__ import annotations

from dataclasses import dataclass

from segrt.errors import DeviceError
from segrt.types import Device, Mode

MAX_THREADS = 8
"""Most threads of normal mode: what the published CPU figures were measured with."""


@dataclass(frozen=True)
class Plan:
    """Everything a session needs to know.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        precision: "fp32".
        threads: threads inside one operator.
    """

    provider: str
    precision: str
    threads: int


def plan(device: Device | None, mode: Mode, providers: tuple[str, ...], cores: int) -> Plan:
    """Choose how to run.

    Args:
        device: what the user named; None for the best that is there.
        mode: normal or high-performance.
        providers: the execution providers that the installed ONNX Runtime offers.
        cores: CPU cores that this process may use.

    Raises:
        DeviceError: the device named can't run here.
    """
    if device is not None and device.kind != "cpu":
        raise DeviceError(
            f"device {str(device)!r} can't run here: this ONNX Runtime offers {', '.join(providers)}; use device 'cpu'"
        )
    if mode is not Mode.NORMAL:
        raise DeviceError("high-performance mode is not part of this release: use mode 'normal'")
    return Plan("CPUExecutionProvider", "fp32", max(1, min(MAX_THREADS, cores)))
