"""Runs `segrt-export` as `python -m segrt_export`."""

from segrt_export.cli import main

if __name__ == "__main__":
    main()
