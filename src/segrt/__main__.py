"""`python -m segrt` is the command `segrt`."""

from segrt.cli import main

main()
