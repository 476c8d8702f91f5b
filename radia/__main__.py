"""`python -m radia` is the command `radia`."""

from radia.cli import main

main()
