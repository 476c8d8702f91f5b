"""Several processes behind one port, as `radia web --workers 2` starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "radia", "web", "--port", str(port), "--workers", "2", "--open-demo"]
    environment = {**os.environ, "RADIA_DATA": str(tmp_path / "data"), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_processes_count_together_and_leave_nothing_behind(
    served: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    address, process = served
    answered = 0
    while not answered:
        assert process.poll() is None
        try:
            answered += requests.get(f"{address}/healthz", timeout=60).status_code == 200
        except requests.ConnectionError:
            time.sleep(0.1)
    assert len(psutil.Process(process.pid).children()) == 2
    for _ in range(19):  # each on a connection of its own, to whichever process takes it
        assert requests.get(f"{address}/healthz", timeout=60).json() == {"status": "ok", "model": None}
    counted = 'radia_requests_total{method="GET",status="200",view="api.health"} 20.0'
    for _ in range(3):
        assert counted in requests.get(f"{address}/metrics", timeout=60).text
    assert list(tmp_path.glob("radia-web-*"))
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert not list(tmp_path.glob("radia-web-*"))
