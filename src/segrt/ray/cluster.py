"""How Ray is started, and how many actors of which size a cluster gets."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segrt import errors
from segrt.errors import ConfigError, DeviceError, SegrtError
from segrt.ray import stores
from segrt.types import shown

if TYPE_CHECKING:
    import pyarrow

RETRIES = 3
"""How often a block is done again whose actor died, before the images are done one by one."""


def start(address: str | None = None) -> Any:
    """Connect to a cluster, or start one on this machine; returns the module `ray`.

    A Ray that runs in this process already is used as it is. One that is started here has no
    dashboard, and sends no usage statistics.

    Args:
        address: of the cluster; "auto" finds the one that this machine belongs to. None starts one,
            unless the environment has RAY_ADDRESS.

    Raises:
        DeviceError: there is no such cluster.
        MissingExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise stores.missing() from None
    if not ray.is_initialized():
        _check(address or os.environ.get("RAY_ADDRESS"))
        own = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DeviceError(f"there is no Ray cluster at {address}: {reason}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a block that ends its actor again and again is counted here
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _check(address: str | None) -> None:
    """Refuse an address where nothing listens: Ray would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)/?", address or "")
    if not match:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DeviceError(f"there is no Ray cluster at {address}: {reason}") from None


@dataclass(frozen=True)
class Actors:
    """The actors of a job.

    Attributes:
        count: number of them.
        cpus: that Ray counts for each.
        gpus: that each has for itself.
    """

    count: int
    cpus: float
    gpus: int


def run(
    ray: Any,
    tables: Sequence[pyarrow.Table],
    worker: type,
    arguments: tuple[object, ...],
    actors: Actors,
    retries: int = RETRIES,
) -> Generator[dict[str, Any], None, None]:
    """Give each table to an actor, and yield the rows that it returns, as they come.

    What a table has cost an actor is repeated in another one. After the last try, its rows are
    missing.

    Args:
        ray: what `start` returned.
        tables: the work, each done as a whole.
        worker: the class of the actors: called with a table, it returns a table.
        arguments: of that class.
        actors: how many, and which.
        retries: how often a table is repeated whose actor died; -1 for ever.

    Raises:
        SegrtError: an actor can't be started, or Ray has ended the job.
    """
    if not tables:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, without a successor
        results = ray.data.from_arrow(list(tables)).map_batches(
            worker,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(actors.count, len(tables))),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=-1,
            max_task_retries=retries,
        )
    try:
        yield from results.iter_rows()
    except ray.exceptions.RayError as error:
        raise _reason(error) from None


def _reason(error: Exception) -> SegrtError:
    """The error of segrt that an actor raised; else what Ray says, in one line.

    Of what the constructor of an actor raised, Ray keeps nothing but the text.
    """
    text = str(error)
    if match := re.search(r"^segrt\.errors\.(\w+): (.+)$", text, re.MULTILINE):
        found: SegrtError = getattr(errors, match[1], DeviceError)(match[2])
        return found
    return DeviceError(f"Ray has ended the job: {' '.join(text.split())[:500]}")


def enter(directory: str) -> None:
    """Let paths mean in an actor what they mean in the process that started the job."""
    with suppress(OSError):  # where all paths are URLs, no node needs the folder
        os.chdir(directory)


def actors(nodes: list[dict[str, Any]], device: str | None, concurrency: int | str) -> Actors:
    """Choose the actors for a cluster: one for each GPU, or else one for each machine.

    An actor on a CPU uses all cores of its machine, through its threads, but Ray counts one core
    less for it (half of one, if there is one only): so there is always something left for tasks of
    others, and no job can wait forever for a core that its own actors hold.

    Example:
        >>> actors([{"Alive": True, "Resources": {"CPU": 8.0}}], None, "auto")
        Actors(count=1, cpus=7.0, gpus=0)

    Args:
        nodes: what `ray.nodes()` returns.
        device: of the pipeline; "cpu" uses no GPU.
        concurrency: number of actors, or "auto".

    Raises:
        ConfigError: the concurrency is invalid.
        DeviceError: the cluster has no CPU, or no GPU for `device`.
    """
    if concurrency != "auto" and not (type(concurrency) is int and concurrency > 0):
        raise ConfigError(
            f"concurrency {shown(concurrency)} is not valid: use auto, or a whole number from 1"
        )
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [found["CPU"] for found in resources if found.get("CPU", 0) >= 1]
    gpus = int(sum(found.get("GPU", 0) for found in resources))
    if not cores:
        raise DeviceError("the Ray cluster has no CPU: start it with ray start --num-cpus")
    wants_gpu = device is not None and device.lower().startswith("gpu")
    if wants_gpu and not gpus:
        raise DeviceError(f"the Ray cluster has no GPU for device={device}: use device='cpu'")
    given = concurrency if isinstance(concurrency, int) else None
    if gpus and (wants_gpu or device is None):
        return Actors(given or gpus, 1, 1)
    least = min(cores)
    share = max(least - 1, 0.5)
    if given and given > len(cores):  # several on a machine
        share = max(0.1, min(share, sum(core - 0.5 for core in cores) / given))
    return Actors(given or len(cores), share, 0)
