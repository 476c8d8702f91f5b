"""Serves the web app: threads of one process (waitress), or several processes that share the weights (gunicorn)."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import threading
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import click

from radia.errors import RadiaError, SettingsError
from radia.predict import use_threads
from radia.settings import load_settings
from radia.web import create_app
from radia.web.accounts import Accounts
from radia.web.serving import ModelInUse
from radia.workspace import Workspace

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

THREADS = 16
"""Of a process: more than the images that go through the model together, so that a batch can be full."""


def serve(site: Workspace, *, host: str, port: int, workers: int = 1, open_demo: bool | None = None) -> None:
    """Serves until the process ends. open_demo: without accounts; None: on this machine, while nobody has one.

    Raises SettingsError where the open demo would be open to a network.
    """
    here, nobody = _is_this_machine(host), not Accounts(site.web / "people.db").all()
    if open_demo and not here:
        raise SettingsError("the open demo is for this machine alone: leave --host out, or make accounts")
    if open_demo is None:
        open_demo = here and nobody
    if workers > 1:
        # before the first counter: the processes count in files of their own, which each of them can add up
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = mkdtemp(prefix="radia-web-")
    app = create_app(site, open_demo=open_demo)
    click.echo(f"http://{host}:{port}")
    if nobody:
        click.echo("The demo page is open to this machine." if open_demo else "Nobody can sign in yet.")
        click.echo("The first account: radia people add NAME --role lead")
    if workers == 1:
        _threads(app, host=host, port=port)
        return
    parent = os.getpid()
    try:
        _processes(app, host=host, port=port, workers=workers)
    finally:
        if os.getpid() == parent:  # a worker that ends comes by here too
            shutil.rmtree(os.environ.pop("PROMETHEUS_MULTIPROC_DIR"), ignore_errors=True)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be known to others
        return False


def _threads(app: Flask, *, host: str, port: int) -> None:
    from waitress import serve as listen

    _fetch_model(app)
    most = load_settings().web.upload_mb << 20
    most += 65_536
    # uploads do not touch the disk, as they would above 512 kB
    listen(app, host=host, port=port, threads=THREADS, ident=None, max_request_body_size=most, inbuf_overflow=most + 1)


def _fetch_model(app: Flask) -> None:
    """Loads the model beside the server's start, so that the first request need not wait for it."""
    model: ModelInUse = app.extensions["radia"].model

    def fetch() -> None:
        try:
            model.now()
        except RadiaError as error:
            log.warning("no model to begin with: %s", type(error).__name__)

    threading.Thread(target=fetch, name="first model", daemon=True).start()


def _processes(app: Flask, *, host: str, port: int, workers: int) -> None:
    """The app is made once, before the processes part; each maps the weights, which lie in memory once."""
    from gunicorn.app.base import BaseApplication

    cores = max(1, len(os.sched_getaffinity(0)) // workers)

    def begin(_worker: object) -> None:
        use_threads(cores)
        _fetch_model(app)

    def end(_server: object, worker: Any) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

    options = {
        "bind": f"{host}:{port}",
        "workers": workers,
        "threads": THREADS,
        "worker_class": "gthread",
        "preload_app": True,
        "post_worker_init": begin,
        "child_exit": end,
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
