"""Tar archives for tests."""

from __future__ import annotations

import io
import tarfile

MODEL = {
    "inference.json": b"{}",
    "inference.pdiparams": bytes(range(256)) * 4000,
    "inference.yml": b"Global: {}\n",
}


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    """A tar header with the given fields."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_of(*items: tuple[str | tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    """A tar of (name or header, content) items."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for head, content in items:
            info = head if isinstance(head, tarfile.TarInfo) else entry(head)
            if content:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def model_tar(folder: str = "model", weights: bytes = MODEL["inference.pdiparams"]) -> bytes:
    """A tar of files that look like a Paddle model."""
    files = {**MODEL, "inference.pdiparams": weights}
    return tar_of(*((f"{folder}/{name}", content) for name, content in files.items()))
