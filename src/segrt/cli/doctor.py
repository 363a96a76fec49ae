"""`segrt doctor`: what this machine offers, and how to fix each problem."""

from __future__ import annotations

from segrt import doctor as machine


def doctor() -> int:
    """Show what this machine offers, what is wrong with it, and how to fix each problem."""
    return 0 if machine.doctor() else 1
