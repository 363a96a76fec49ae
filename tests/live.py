"""`segrt serve` as users start it, in a separate process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread


@contextmanager
def server(*options: str) -> Iterator[str]:
    """Run `segrt serve` with the bundled model on the CPU and a free port; yields its address."""
    command = [
        sys.executable,
        "-m",
        "segrt",
        "serve",
        "--port",
        "0",
        "--device",
        "cpu",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            output = ""
            while not (found := re.search(r"serving .* at\s+(http://[\d.]+:\d+)", output)):
                line = process.stderr.readline()
                assert line, f"segrt serve exited: {output}"
                output += line
            # A full pipe would block the server.
            Thread(target=process.stderr.read, daemon=True).start()
            yield found[1]
        finally:
            process.terminate()
            process.wait(30)
