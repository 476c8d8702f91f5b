"""Serves the web app: threads of one process (waitress), or several processes that share the weights (gunicorn)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import click

from radia.errors import SettingsError
from radia.settings import load_settings
from radia.web import create_app
from radia.web.accounts import Accounts
from radia.workspace import Workspace

if TYPE_CHECKING:
    from flask import Flask

THREADS = 8


def serve(site: Workspace, *, host: str, port: int, workers: int = 1, open_demo: bool | None = None) -> None:
    """Serves until the process ends. open_demo: without accounts; None: on this machine, while nobody has one.

    Raises SettingsError where the open demo would be open to a network.
    """
    here, nobody = _is_this_machine(host), not Accounts(site.web / "people.db").all()
    if open_demo and not here:
        raise SettingsError("the open demo is for this machine alone: leave --host out, or make accounts")
    if open_demo is None:
        open_demo = here and nobody
    app = create_app(site, open_demo=open_demo)
    click.echo(f"http://{host}:{port}")
    if nobody:
        click.echo("The demo page is open to this machine." if open_demo else "Nobody can sign in yet.")
        click.echo("The first account: radia people add NAME --role lead")
    if workers > 1:
        _processes(app, host=host, port=port, workers=workers)
    else:
        _threads(app, host=host, port=port)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be known to others
        return False


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
