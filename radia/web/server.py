"""Serves the web app: threads of one process (waitress), or several processes that share the weights (gunicorn)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import click

from radia.errors import SettingsError
from radia.settings import load_settings
from radia.web import create_app
from radia.workspace import Workspace

if TYPE_CHECKING:
    from flask import Flask

THREADS = 8


def serve(site: Workspace, *, host: str, port: int, workers: int = 1, open_demo: bool = False) -> None:
    """Serves until the process ends. Raises SettingsError where the open demo would be open to a network."""
    if open_demo and host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise SettingsError("the open demo is for this machine alone: leave --host out, or make accounts")
    app = create_app(site, open_demo=open_demo)
    click.echo(f"http://{host}:{port}")
    if not open_demo and not app.extensions["radia"].accounts.all():
        click.echo("No account yet. The first one: radia people add NAME --role lead")
        click.echo("The demo page alone, without accounts: radia web --open-demo")
    if workers > 1:
        _processes(app, host=host, port=port, workers=workers)
    else:
        _threads(app, host=host, port=port)


def _threads(app: Flask, *, host: str, port: int) -> None:
    from waitress import serve as listen

    most = load_settings().web.upload_mb << 20
    most += 65_536
    # uploads do not touch the disk, as they would above 512 kB
    listen(app, host=host, port=port, threads=THREADS, ident=None, max_request_body_size=most, inbuf_overflow=most + 1)


def _processes(app: Flask, *, host: str, port: int, workers: int) -> None:
    """The app is made once, before the processes part; each maps the weights, which lie in memory once."""
    from gunicorn.app.base import BaseApplication

    options = {
        "bind": f"{host}:{port}",
        "workers": workers,
        "threads": THREADS,
        "worker_class": "gthread",
        "preload_app": True,
        "timeout": 120,
        "graceful_timeout": 60,
        "limit_request_line": 4094,
        "limit_request_fields": 60,
        "loglevel": "warning",
    }

    class Processes(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return app

    Processes().run()
