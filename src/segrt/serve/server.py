"""Run the application until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from functools import partial
from types import FrameType

import numpy as np
import uvicorn

from segrt.errors import ConfigError
from segrt.pipeline import Pipeline
from segrt.postprocess import load_loop
from segrt.serve.app import create_app
from segrt.serve.connections import BACKLOG, Connection, limited
from segrt.serve.service import Service
from segrt.serve.settings import Settings

log = logging.getLogger("segrt.serve")

# Connections that the system may hold until they are accepted. If it holds more, it ignores new
# ones, and their clients try again a second later.
_QUEUE = 1024

_GRACE_SECONDS = 0.25  # after the last accepted connection, to receive its request


class Server(uvicorn.Server):
    """On SIGTERM, accepts no new connections, completes every request received, then exits.

    Example:
        >>> Server(segrt.create_pipeline(), Settings()).run([bind("127.0.0.1", 8080)])

    Attributes:
        service: does the work.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        """Create the application, and start the processes that decode images."""
        app = create_app(pipeline, settings)
        self.service: Service = app.state.service
        self.service.decoders.start()
        protocol = partial(
            Connection,
            most=limited(settings.max_connections),
            seconds=settings.timeout,
            incomplete={},
        )
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=protocol,  # type: ignore[arg-type]
                backlog=BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=round(settings.timeout) + 5,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down."""
        self.service.draining = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        for sock in sockets or []:
            sock.listen(_QUEUE)

    async def on_tick(self, counter: int) -> bool:
        """Check the connections; whether to exit."""
        if counter % 10 == 0:  # once a second
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Complete the requests in progress."""
        log.info("stopping: completing the requests in progress")
        for server in self.servers:
            server.close()
        await asyncio.sleep(_GRACE_SECONDS)
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """Bind a port. Call this before loading the model, so that a busy port is reported at once.

    Args:
        host: address or host name; 0.0.0.0 for all interfaces.
        port: port number; 0 for any free port.

    Raises:
        ConfigError: it can't be bound.
    """
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"port {port} is not valid: it must be from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host} port {port}: {error}; choose another with --host and --port"
        ) from None
    return sock


def warm_up(pipeline: Pipeline) -> None:
    """Segment a few images, which compiles or loads what later ones reuse.

    Example:
        >>> warm_up(pipeline)  # before the first request, which should not wait for it
    """
    load_loop()
    # Of different sizes, as images to come may be: a session's fourth run loads its second graph.
    sizes = [(64, 32 * count) for count in range(2, 2 + 4 * len(pipeline.sessions))]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    list(pipeline.predict(images, on_error="yield"))


def run(pipeline: Pipeline, settings: Settings, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then complete the requests in progress.

    Example:
        >>> run(segrt.create_pipeline(), Settings(), bind("127.0.0.1", 8080))
    """
    warm_up(pipeline)
    server = Server(pipeline, settings)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
        signal.signal(number, signal.SIG_IGN)
    host, port = sock.getsockname()[:2]
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("serving %s on %s at %s", pipeline.model_name, pipeline.session.plan, where)
    if settings.token is None and host not in ("127.0.0.1", "::1"):
        log.warning(
            "%s is open to everyone who can reach it: set --token to require a token", where
        )
    server.run([sock])
    log.info("stopped")
