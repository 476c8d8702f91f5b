"""All services on one machine, for `radia up`: on 127.0.0.1, on the embedded defaults, ending together.

One at a time on a data folder, for two of Dagster's daemons would start everything twice: the lock is the kernel's, so
nothing is left of it by a process that was killed. What such a one had started, its warden ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from radia.errors import RadiaError
from radia.operations.schema import make_missing
from radia.services import warden
from radia.services.catalogue import LOOPBACK, Service, find
from radia.services.instance import dagster_home
from radia.services.overview import serve_overview
from radia.settings import load_settings
from radia.workspace import Workspace

EMBEDDED = ("mlflow", "dagster-code", "dagster-webserver", "dagster-daemon", "web")
"""What runs on one machine; the receiver too, where senders are listed."""

START_SECONDS = 300.0
END_SECONDS = warden.END_SECONDS

_OPTIONS = {
    "the page": "--port",
    "mlflow": "--mlflow-port",
    "dagster-webserver": "--dagster-port",
    "dagster-code": "--code-port",
    "web": "--web-port",
    "receiver": "intake.receiver.port in params.yaml",
}
"""Where each one's port is set."""


@dataclass(frozen=True)
class Started:
    """A service that was started here, its port (0: none) and its log."""

    service: Service
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def page(self) -> str:
        """Where a person starts; empty where there is no page."""
        return f"http://{LOOPBACK}:{self.port}/" if self.service.page else ""

    @property
    def runs(self) -> bool:
        """Whether its process still does."""
        return self.process.poll() is None


def serve_all(site: Workspace, *, ports: Mapping[str, int], page_port: int) -> None:
    """Runs the services until Ctrl-C, SIGTERM, the end of its terminal, or until one of them ends; then ends them all.

    Raises RadiaError.
    """
    names = [*EMBEDDED, *(["receiver"] if load_settings().intake.receiver.senders else [])]
    wanted = [(find(name), ports.get(name) or _usual_port(name)) for name in names]
    with _alone(site, f"http://{LOOPBACK}:{page_port}") as lock:
        for name, port in [("the page", page_port), *((service.name, port) for service, port in wanted)]:
            _refuse_taken(name, port)
        asked = _asked_to_end()
        make_missing(site)
        environment = _environment(site, {service.name: port for service, port in wanted})
        started: list[Started] = []
        with _warden(lock) as groups:
            try:
                for service, port in wanted:
                    started.append(start(service, port, environment, site.root / "logs"))
                    print(started[-1].process.pid, file=groups, flush=True)
                for one in started:
                    await_port(one, asked=asked)
                if not asked:
                    serve_overview(site, started, page_port)
                    click.echo(f"http://{LOOPBACK}:{page_port}  links everything; Ctrl-C ends it")
                _wait(started, asked)
            finally:
                end(started)


def _asked_to_end() -> Sequence[int]:
    """Fills with the signals that ask for the end. They interrupt nothing: a lock that was just taken would stay so."""
    asked: list[int] = []
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, _frame: asked.append(number))
    return asked


def _wait(started: Sequence[Started], asked: Sequence[int]) -> None:
    """Until the end is asked for. Raises RadiaError where a service ends before."""
    while not asked:
        if ended := [one for one in started if not one.runs]:
            raise RadiaError(f"{ended[0].service.name} ended: see {ended[0].log}")
        time.sleep(0.5)
    with suppress(OSError):  # the terminal may be gone
        click.echo("ending")


@contextmanager
def _alone(site: Workspace, page: str) -> Iterator[IO[str]]:
    """Holds the data folder's lock. Raises RadiaError where another `radia up` does."""
    path = site.root / "logs" / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            theirs = lock.read().strip()
            raise RadiaError(
                f"`radia up` runs on {site.root} already, or is still ending: {theirs}; another needs a RADIA_DATA of "
                "its own"
            ) from None
        lock.truncate(0)
        print(page, file=lock, flush=True)
        yield lock


@contextmanager
def _warden(lock: IO[str]) -> Iterator[IO[str]]:
    """A process that ends the groups written to it when this one is gone; until then it holds the lock too."""
    command = [sys.executable, warden.__file__]
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, text=True, pass_fds=[lock.fileno()], start_new_session=True
    )
    assert process.stdin is not None  # noqa: S101  # as asked for
    try:
        yield process.stdin
    finally:
        process.stdin.close()
        process.wait()


def start(service: Service, port: int, environment: Mapping[str, str], logs: Path, *options: str) -> Started:
    """Starts `radia serve` of a service in a session of its own, its output at the end of its log."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{service.name}.log"
    command = [sys.executable, "-m", "radia", "serve", service.name, *(options or ("--open",)), "--port", str(port)]
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603
            command, env=dict(environment), stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True
        )
    return Started(service, port, process, log)


def await_port(one: Started, seconds: float = START_SECONDS, *, asked: Sequence[int] = ()) -> None:
    """Waits until a service listens, or until the end is asked for. Raises RadiaError."""
    deadline = time.monotonic() + seconds
    while one.port and not asked and not _listens(one.port):
        if not one.runs:
            raise RadiaError(f"{one.service.name} did not start: see {one.log}")
        if time.monotonic() > deadline:
            raise RadiaError(f"{one.service.name} did not answer within {seconds:.0f} s: see {one.log}")
        time.sleep(0.2)


def end(started: Sequence[Started]) -> None:
    """Ends services, the last started first: asks each and its children to, and after a while makes them."""
    for one in reversed(started):
        _signal(one, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    for one in reversed(started):
        try:
            one.process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(one, signal.SIGKILL)
            one.process.wait()
        _signal(one, signal.SIGKILL)  # children that outlived it


def _signal(one: Started, which: signal.Signals) -> None:
    try:
        os.killpg(one.process.pid, which)
    except ProcessLookupError:
        return


def _environment(site: Workspace, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        **os.environ,
        "RADIA_DATA": str(site.root.resolve()),
        "DAGSTER_HOME": str(dagster_home(site)),
        "RADIA_LOG": "json",
        "RADIA_ADDRESSES": " ".join(f"{name}={LOOPBACK}:{port}" for name, port in ports.items() if port),
    }


def _usual_port(name: str) -> int:
    """The service's own, or of those that nobody visits a free one: the other services are told which."""
    if name == "receiver":
        return load_settings().intake.receiver.port
    return _free_port() if name == "dagster-code" else find(name).port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _refuse_taken(name: str, port: int) -> None:
    if port and _listens(port):
        raise RadiaError(f"port {port} is taken by another program: give {name} another one ({_OPTIONS[name]})")
