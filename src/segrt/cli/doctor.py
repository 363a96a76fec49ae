"""`segrt doctor`: what this machine offers, and how to fix each problem."""

from __future__ import annotations

from segrt import doctor as machine
from segrt.cli.options import AsJson


def doctor(*, json: AsJson = False) -> int:
    """Show what this machine offers, what is wrong with it, and how to fix each problem.

    Args:
        json: Print one line of JSON.
    """
    return 0 if machine.doctor(as_json=json) else 1
