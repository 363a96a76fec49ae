"""The server's log: text or JSON lines, each with the id of its request."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone

log_id: ContextVar[str] = ContextVar("log_id", default="")
"""The id of the current request."""


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
        shown = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in message
        )
        return " ".join(filter(None, (when, record.levelname, log_id.get(), shown))) + (
            f"\n{trace}" if trace else ""
        )


def set_up(*, as_json: bool) -> None:
    """Send the logs of segrt and uvicorn to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("segrt").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
