"""`segrt serve`: the pipeline over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Group, Parameter

from segrt import config
from segrt.backends.memory import tune_malloc
from segrt.cli import interrupts
from segrt.cli.options import PipelineOptions
from segrt.errors import MissingExtraError

try:
    from segrt.serve import logs, server
    from segrt.serve.settings import Settings
except ImportError as error:
    raise MissingExtraError(
        f"serving needs {error.name}: run  pip install 'segrt[serve]'"
    ) from None

SERVER = Group("Server", sort_key=0)


def serve(
    *,
    host: Annotated[str, Parameter(group=SERVER)] = "127.0.0.1",
    port: Annotated[int, Parameter(group=SERVER)] = 8080,
    log_json: Annotated[bool, Parameter(group=SERVER, negative="", show_default=False)] = False,
    model: PipelineOptions = PipelineOptions(),
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
) -> None:
    """Serve the pipeline over HTTP, with PaddleX's API, until SIGTERM.

    Args:
        host: Address to listen on; 0.0.0.0 for all network interfaces.
        port: Port to listen on; 0 for any free port.
        log_json: Write the log as JSON, one object per line.
    """
    tune_malloc()
    interrupts.check()
    interrupts.restore()  # the server handles signals itself
    logs.set_up(as_json=log_json)
    if settings.visualize is None:
        settings = replace(settings, visualize=config.load(model.pipeline, None).serving.visualize)
    sock = server.bind(host, port)
    server.run(model.create(), settings, sock)
