"""Runs in a frozen program before its own script.

segrt starts workers as `sys.executable -m module`. In a frozen program that is the program itself,
which does not know `-m`.
"""

import sys

if sys.argv[1:3] == ["-m", "segrt.serve.decoding"]:
    del sys.argv[1:3]
    from segrt.serve import decoding

    decoding.main()
    sys.exit()

sys.segrt_workers = True  # type: ignore[attr-defined]
