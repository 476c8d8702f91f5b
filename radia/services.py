"""Dagster, MLflow and the web app as processes of this machine, for `radia up`: on 127.0.0.1, ending together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from radia.errors import RadiaError
from radia.settings import mlflow_url
from radia.workspace import Workspace, written_whole

DAGSTER_CONFIG = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
  runs:
    tag_concurrency_limits:
      - key: radia/writes
        limit: 1
freshness:
  enabled: true
"""


@dataclass(frozen=True)
class Service:
    """One process: what to run, and the page where a person finds it."""

    name: str
    command: tuple[str, ...]
    port: int

    @property
    def page(self) -> str:
        """Its address in a browser of this machine."""
        return f"http://127.0.0.1:{self.port}"


def services(site: Workspace, *, dagster_port: int, mlflow_port: int, web_port: int) -> tuple[Service, ...]:
    """The three services on a site's data folder."""
    python = sys.executable
    checkout = Path(__file__).resolve().parents[1]
    dagster = (
        "-m",
        "dagster",
        "dev",
        "-w",
        str(checkout / "workspace.yaml"),
        "-h",
        "127.0.0.1",
        "-p",
        str(dagster_port),
    )
    mlflow: tuple[str, ...] = ("-m", "mlflow", "server", "--backend-store-uri", mlflow_url(site), "--host", "127.0.0.1")
    mlflow += ("--port", str(mlflow_port), "--workers", "1")
    mlflow += ("--default-artifact-root", site.mlflow_artifacts.resolve().as_uri())
    web = ("-m", "radia", "web", "--port", str(web_port))
    return (
        Service("Dagster", (python, *dagster), dagster_port),
        Service("MLflow", (python, *mlflow), mlflow_port),
        Service("web app", (python, *web), web_port),
    )


def serve_all(site: Workspace, *, dagster_port: int, mlflow_port: int, web_port: int) -> None:
    """Runs the services until Ctrl-C or until one of them ends, then ends them all. Raises RadiaError."""
    wanted = services(site, dagster_port=dagster_port, mlflow_port=mlflow_port, web_port=web_port)
    for service in wanted:
        _refuse_taken(service)
    environment = {
        **os.environ,
        "RADIA_DATA": str(site.root.resolve()),
        "DAGSTER_HOME": str(dagster_home(site)),
    }
    signal.signal(signal.SIGTERM, _interrupt)
    processes: list[tuple[Service, subprocess.Popen[bytes]]] = []
    try:
        for service in wanted:
            log = (site.root / f"{service.name.replace(' ', '-').lower()}.log").open("ab")
            processes.append((service, _start(service, environment, log.fileno())))
        for service, process in processes:
            _await(service, process)
            click.echo(f"{service.name:<8} {service.page}")
        click.echo("Ctrl-C ends them.")
        while all(process.poll() is None for _, process in processes):
            time.sleep(0.5)
        ended = next(service.name for service, process in processes if process.poll() is not None)
        raise RadiaError(f"{ended} ended: see its log in {site.root}")
    except KeyboardInterrupt:
        click.echo("ending")
    finally:
        _end([process for _, process in processes])


def dagster_home(site: Workspace) -> Path:
    """Dagster's folder in the site's data folder, made on first use. Absolute, as Dagster asks, and quiet."""
    home = site.dagster_home.resolve()
    config = home / "dagster.yaml"
    if not config.is_file():
        with written_whole(config) as partial:
            partial.write_text(DAGSTER_CONFIG)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _start(service: Service, environment: dict[str, str], log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        service.command, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def _await(service: Service, process: subprocess.Popen[bytes], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RadiaError(f"{service.name} did not start: see its log in the data folder")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", service.port)) == 0:
                return
        time.sleep(0.3)
    raise RadiaError(f"{service.name} did not answer within {seconds:.0f} s")


def _refuse_taken(service: Service) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", service.port)) == 0:
            raise RadiaError(f"port {service.port} is taken: give {service.name} another one")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
