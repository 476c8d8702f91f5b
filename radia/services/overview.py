"""The page of `radia up`: every service, how it is, and where its pages are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from string import Template
from threading import Thread
from typing import TYPE_CHECKING

from radia import __version__
from radia.workspace import Workspace

if TYPE_CHECKING:
    from radia.services.together import Started

LOOPBACK = "127.0.0.1"


def serve_overview(site: Workspace, started: Sequence[Started], port: int) -> ThreadingHTTPServer:
    """Serves the page on this machine, in a thread that ends with the process."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page, and the states of the services as JSON under /states."""
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            if host not in (LOOPBACK, "localhost"):  # a page of another site that had its name point here
                self.send_error(421)
                return
            if self.path == "/states":
                states = {one.service.name: "runs" if one.runs else "ended" for one in started}
                self._answer("application/json", json.dumps(states))
            elif self.path == "/":
                self._answer("text/html; charset=utf-8", page(site, started))
            else:
                self.send_error(404)

        def _answer(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing: the terminal is for the person who started it."""

    server = ThreadingHTTPServer((LOOPBACK, port), Page)
    Thread(target=server.serve_forever, name="overview", daemon=True).start()
    return server


def page(site: Workspace, started: Sequence[Started]) -> str:
    """HTML: a card for each page, then every process with its log."""
    cards = "".join(
        f'<a class="card" href="{escape(one.page)}"><b>{escape(_TITLES.get(one.service.name, one.service.name))}</b>'
        f"<span>{escape(one.service.purpose)}</span><code>{escape(one.page.removeprefix('http://'))}</code></a>"
        for one in started
        if one.page
    )
    rows = "".join(
        f'<tr><td><i class="{"on" if one.runs else "off"}"></i>{escape(one.service.name)}</td>'
        f"<td>{escape(one.service.purpose)}</td><td>{one.port or ''}</td>"
        f"<td><code>{escape(str(one.log))}</code></td></tr>"
        for one in started
    )
    return Template(files("radia.services").joinpath("overview.html").read_text()).substitute(
        cards=cards, rows=rows, data=escape(str(site.root.resolve())), version=escape(__version__)
    )


_TITLES = {"web": "Web app", "dagster-webserver": "Dagster", "mlflow": "MLflow"}
