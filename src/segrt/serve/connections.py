"""Limits on connections: how many are open, and how long each may wait for its client."""

from __future__ import annotations

import asyncio
import enum
import logging
import resource
import sys
import uuid
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from segrt.errors import ConfigError
from segrt.serve.responses import failure

log = logging.getLogger("segrt.serve")

BACKLOG = 64
"""Connections that the event loop accepts at once."""

_HEAD_SECONDS = 10.0
_END_SECONDS = 10.0  # to read the response, and to stop sending

# After so many chunks of a body, their mean must be so large; a chunk has two line breaks.
_MANY_CHUNKS, _CHUNK_BYTES = 1000, 128
# Of what was received, until the next check. h11 checks the size of headers, at most 16 KiB, only
# while they are incomplete, so their parts are small.
_PART_BYTES, _HEAD_PART_BYTES = 1 << 14, 1 << 8

# With too many connections, an upload younger than this is not given up.
_UPLOAD_SECONDS = 5.0

# Connections that are too many are closed two turns of the event loop after they are accepted.
# Models, decoders and fetched URLs need the other descriptors.
_SPARE_FILES = 3 * BACKLOG + 128
_FEWEST = 16


class _Waiting(enum.Enum):
    """What a connection waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    RESULT = enum.auto()
    READER = enum.auto()
    END = enum.auto()


class Connection(H11Protocol):
    """A connection of a client; a protocol, in uvicorn's terms.

    When too many are open, the one that has waited longest for its client is closed: clients that
    don't complete their requests can't keep others out.
    """

    def __init__(
        self,
        *arguments: Any,
        most: int,
        seconds: float,
        incomplete: dict[Connection, None],
        **options: Any,
    ) -> None:
        """Create the protocol, as uvicorn does.

        Args:
            *arguments: for uvicorn's protocol.
            most: maximum number of open connections.
            seconds: time limit for reading a response.
            incomplete: an empty dictionary, the same for all connections of a server. It contains
                those whose request is incomplete, the oldest first.
            **options: for uvicorn's protocol.
        """
        super().__init__(*arguments, **options)
        self._most, self._seconds, self._incomplete = most, seconds, incomplete
        self._refused = False
        self._counted: RequestResponseCycle | None = None
        self._lines = self._bytes = 0
        self._state: tuple[_Waiting, RequestResponseCycle | None] = (_Waiting.END, None)
        self._since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, if there is room or another one can be closed."""
        super().connection_made(transport)
        if len(self.connections) > self._most and not self._make_room():
            self._refuse(503, "The server has too many connections: try again in a second.")
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        super().connection_lost(exc)
        self._incomplete.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Handle what the client sent."""
        rest = memoryview(data)
        while rest and not self._refused:
            in_head = self._waiting() is _Waiting.HEAD
            size = _HEAD_PART_BYTES if in_head else _PART_BYTES
            part, rest = bytes(rest[:size]), rest[size:]
            super().data_received(part)
            self._count_chunks(part)
            self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._note()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP."""
        error = sys.exc_info()[1]  # what h11 raised
        why = " ".join(str(error).split())[:100]
        status = getattr(error, "error_status_hint", 400)
        self._refuse(status, f"The request is not valid HTTP/1.1: {why}.")

    def shutdown(self) -> None:
        """Close the connection, unless a request is in progress."""
        if self._waiting() is _Waiting.END:
            self.transport.close()
        else:
            super().shutdown()

    def check(self) -> None:
        """Close the connection if its client is too slow. Call it about once a second."""
        self._note()
        waiting, seconds = self._state[0], self.loop.time() - self._since
        if waiting is _Waiting.HEAD and seconds > _HEAD_SECONDS:
            self._refuse(408, f"The headers did not arrive within {_HEAD_SECONDS:g} s.")
        elif (waiting is _Waiting.END and seconds > _END_SECONDS) or (
            waiting is _Waiting.READER and seconds > self._seconds
        ):
            self.transport.abort()

    def _count_chunks(self, data: bytes) -> None:
        """Refuse a body of tiny chunks, each of which takes as much time as a large one."""
        if (b"transfer-encoding", b"chunked") not in (self.headers or ()):
            return
        if self.cycle is not self._counted:
            self._counted, self._lines, self._bytes = self.cycle, 0, 0
        self._lines += data.count(b"\n")
        self._bytes += len(data)
        chunks = self._lines / 2
        if chunks > _MANY_CHUNKS and self._bytes < chunks * _CHUNK_BYTES:
            self._refuse(400, f"The chunks are too small: send at least {_CHUNK_BYTES} bytes each.")

    def _waiting(self) -> _Waiting:
        if self._refused or self.transport.is_closing():
            return _Waiting.END
        if self.flow.write_paused:
            return _Waiting.READER
        receives = self.conn.their_state is h11.SEND_BODY
        if receives:
            return _Waiting.END if self.cycle.response_started else _Waiting.BODY
        if self.cycle is None or self.cycle.response_complete:
            return _Waiting.HEAD
        return _Waiting.READER if self.cycle.response_started else _Waiting.RESULT

    def _note(self) -> None:
        """Note what the connection waits for now, and since when."""
        state = (self._waiting(), self.cycle)
        if state != self._state:
            self._state, self._since = state, self.loop.time()
            self._incomplete.pop(self, None)
            if state[0] in (_Waiting.HEAD, _Waiting.BODY):
                self._incomplete[self] = None

    def _make_room(self) -> bool:
        """Close the connection whose request has been incomplete longest; False if none can be."""
        old = self.loop.time() - _UPLOAD_SECONDS
        for other in self._incomplete:
            if other._state[0] is _Waiting.HEAD or other._since < old:
                del self._incomplete[other]
                other.transport.abort()
                return True
        return False

    def _refuse(self, status: int, message: str) -> None:
        """Send an error, unless a response has begun, and ignore what the client still sends."""
        if self._refused or self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = failure(str(uuid.uuid4()), status, message, {"Connection": "close"})
            for event in (
                h11.Response(status_code=status, headers=response.raw_headers),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        # To close it now would reset the connection, and the client may lose the response.
        self._refused = True
        self.transport.write_eof()
        if self.cycle is not None:  # its request is cut off
            self.cycle.disconnected = True
            self.cycle.message_event.set()


def limited(most: int) -> int:
    """The number of connections that the limit on open files permits.

    Args:
        most: the number asked for.

    Raises:
        ConfigError: it permits too few.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = most if files == resource.RLIM_INFINITY else files - _SPARE_FILES
    if room < _FEWEST:
        raise ConfigError(
            f"the limit of {files} open files is too low for a server: raise it to at least "
            f"{_SPARE_FILES + _FEWEST} with ulimit -n"
        )
    if room < most:
        log.warning(
            "at most %d connections, not %d: the limit is %d open files (ulimit -n)",
            room,
            most,
            files,
        )
    return min(most, room)
