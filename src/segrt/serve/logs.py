"""The server's log: text or JSON lines, each with the id of its request."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import datetime, timezone

log_id: ContextVar[str] = ContextVar("log_id", default="")
"""The id of the current request."""

# Of the warnings and errors from one line of code, this many in this many seconds are logged.
_MOST, _SECONDS = 10, 60.0


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(
            timespec="milliseconds"
        )
        message = record.getMessage()
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            line = {
                "time": when,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
            }
            line |= {"logId": log_id.get()} if log_id.get() else {}
            line |= {"trace": trace} if trace else {}
            return json.dumps(line | getattr(record, "fields", {}), ensure_ascii=False)
        # A path may contain line breaks or escape sequences: it must not forge lines or control the
        # terminal.
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        return " ".join(filter(None, (when, record.levelname, log_id.get(), shown))) + (
            f"\n{trace}" if trace else ""
        )


class _Repeats(logging.Filter):
    """Leaves out warnings and errors that one line of code repeats too often.

    What clients do can cause them: they must not fill the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}  # first time, number

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        begin, count = self._counts.get(place, (now, 0))
        if now - begin > _SECONDS:
            if count > _MOST:
                record.msg = f"{record.msg} (left out {count - _MOST} times before)"
            begin, count = now, 0
        self._counts[place] = begin, count + 1
        return count < _MOST


def set_up(*, as_json: bool) -> None:
    """Send the logs of segrt and uvicorn to stderr."""
    logging.raiseExceptions = False  # a full disk or a closed terminal must not cost a request
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json))
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    log = logging.getLogger("segrt")
    log.setLevel(log.level or logging.INFO)  # what the command was told, if it was
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
