"""A worker of `segrt.serve.decoding` whose decoder does what the bytes of an image say."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import numpy.typing as npt

from segrt.reading import Reading
from segrt.serve import decoding


def odd(content: bytes, page: int | None, reading: Reading) -> tuple[npt.NDArray[np.uint8], int]:
    """Sleep, spin, crash, use memory, fail, or return one pixel that is the process id."""
    if content == b"sleep":
        time.sleep(1000)
    elif content == b"spin":
        sum(range(10**12))
    elif content == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif content == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif content == b"memory":
        np.ones(1 << 33, np.uint8)
    elif content == b"bug":
        raise KeyError("a bug")
    return np.frombuffer(os.getpid().to_bytes(6, "little"), np.uint8).reshape(1, 2, 3), 1


if __name__ == "__main__":
    decoding.main(odd)
