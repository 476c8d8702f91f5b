"""`radia up`: alone on its data folder, ended in whatever way it is, and leaving nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from radia.errors import RadiaError
from radia.services import together
from radia.services.warden import end_groups
from radia.workspace import Workspace

UP = """
import subprocess, sys
from pathlib import Path
from radia.services import together
from radia.workspace import Workspace

def start(service, port, environment, logs):
    group = "sleep 600 & echo $$ $! >>{pids}; wait"
    process = subprocess.Popen(["sh", "-c", group], start_new_session=True)
    return together.Started(service, 0, process, logs)

together.EMBEDDED, together.start, together.make_missing = ("dagster-daemon",), start, lambda site: None
together.serve_all(Workspace(Path({data!r})), ports={{}}, page_port={port})
"""
"""`radia up` with one service, which is a shell and its child."""
PATIENCE = 60.0


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A running `radia up`, and the process ids of its service."""
    pids = folder / "pids"
    pids.unlink(missing_ok=True)
    code = UP.format(pids=pids, data=str(folder / "data"), port=free_port())
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "links everything" in process.stdout.readline()
    assert until(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
    return process, [int(pid) for pid in pids.read_text().split()]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_ends_its_services_end_and_it_can_be_started_again(ending: signal.Signals, tmp_path: Path) -> None:
    process, pids = up(tmp_path)
    process.send_signal(ending)
    assert process.wait(timeout=PATIENCE) == (-ending if ending == signal.SIGKILL else 0)
    assert until(lambda: not any(map(runs, pids)))
    with (tmp_path / "data" / "logs" / "up.lock").open() as lock:  # its warden has ended too
        assert until(lambda: is_free(lock.fileno()))


def is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def test_a_second_one_on_the_same_data_says_where_the_first_one_is(tmp_path: Path) -> None:
    site = Workspace(tmp_path)
    told = pytest.raises(RadiaError, match=r"already, or is still ending: http://127\.0\.0\.1:8080")
    with together._alone(site, "http://127.0.0.1:8080"), told:
        together.serve_all(site, ports={}, page_port=free_port())


def test_a_port_that_is_taken_is_named_with_the_option_that_sets_it(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = {name: free_port() for name in together.EMBEDDED} | {"mlflow": taken}
        with pytest.raises(RadiaError, match=rf"port {taken} is taken .*--mlflow-port"):
            together.serve_all(Workspace(tmp_path), ports=ports, page_port=free_port())


def test_every_port_that_may_be_taken_has_a_setting() -> None:
    assert together._OPTIONS.keys() == {"the page", "receiver", *together.EMBEDDED} - {"dagster-daemon"}


def test_a_group_that_does_not_heed_is_made_to_end() -> None:
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    end_groups([deaf.pid, os.getpid() + 10**7], seconds=0.5)
    assert deaf.wait(timeout=PATIENCE) == -signal.SIGKILL
