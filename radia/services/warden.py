"""Ends what `radia up` started where it could not do so itself: killed outright, or its terminal gone.

A process of its own, run as a file so that it starts at once: it reads the process groups of the services from standard
input, one a line, and when that is closed, because its parent has ended in whatever way, it ends those that are left.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

END_SECONDS = 30.0


def end_groups(groups: Iterable[int], *, seconds: float = END_SECONDS) -> None:
    """Asks every process of these groups to end, and after a while makes them."""
    left = list(groups)
    for group in left:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = [group for group in left if _is_there(group)]
    for group in left:
        _signal(group, signal.SIGKILL)


def _signal(group: int, which: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # ended, or long ended and its number another's
        os.killpg(group, which)


def _is_there(group: int) -> bool:
    """Whether any process of the group runs: one that has ended and that nobody asked after does not."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, its_group = file.read_text().rsplit(")", 1)[1].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


if __name__ == "__main__":
    end_groups([int(line) for line in sys.stdin])
