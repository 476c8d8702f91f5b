"""Who is let into Dagster: what the web app answers to the proxy's question, and what the proxy makes of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from flask import Flask
from werkzeug.serving import make_server

from radia.operations.secret_files import write_secrets
from radia.services import proxy
from radia.settings import Settings, WebSettings
from radia.web import create_app
from radia.web.access import Context
from radia.web.accounts import ROLES
from radia.workspace import Workspace

PASSWORD = "une-phrase-bien-longue"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

PERMITTED = {
    "engineer": {"engineer"},
    "auditor": {"auditor", "engineer", "lead"},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """With an account a role, named after it, behind a proxy on this machine that names people."""
    settings = Settings(web=WebSettings(trusted_proxies=("127.0.0.1",)))
    made = create_app(Workspace(tmp_path_factory.mktemp("site")), settings=settings)
    shared: Context = made.extensions["radia"]
    for role in ROLES:
        shared.accounts.add(role, roles=[role], password=PASSWORD)
    return made


def bearer(app: Flask, role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {app.extensions['radia'].accounts.make_token(role)}"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("area", PERMITTED)
def test_an_area_is_open_to_its_roles_alone(app: Flask, area: str, role: str) -> None:
    answer = app.test_client().get(f"/allowed/{area}", headers=bearer(app, role))
    assert answer.status_code == (204 if role in PERMITTED[area] else 403)


@pytest.mark.parametrize("area", PERMITTED)
def test_whoever_is_not_signed_in_is_told_so_and_not_sent_elsewhere(app: Flask, area: str) -> None:
    assert app.test_client().get(f"/allowed/{area}", headers={"Accept": "text/html"}).status_code == 401


def test_an_area_that_does_not_exist_is_open_to_nobody(app: Flask) -> None:
    assert app.test_client().get("/allowed/everything", headers=bearer(app, "engineer")).status_code == 404


@pytest.fixture(scope="module")
def through_proxy(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real nginx before the web app and a stand-in for Dagster, which answers 200 to everything."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("proxy")
    write_secrets(folder / "secrets")
    servers = [make_server("127.0.0.1", 0, app, threaded=True), ThreadingHTTPServer(("127.0.0.1", 0), _Dagster)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    web, dagster = (f"127.0.0.1:{server.server_address[1]}" for server in servers)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in (("CERTIFICATE", "tls_certificate"), ("KEY", "tls_key")):
            patch.setenv(f"RADIA_TLS_{variable}_FILE", str(folder / "secrets" / name))
        text = proxy.configuration(folder, "127.0.0.1", port, lambda name: web if name == "web" else dagster)
    config = folder / "nginx.conf"
    config.write_text(text.replace("/dev/stdout", str(folder / "access.log")))
    command = [NGINX, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off;"]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait()
        for server in servers:
            server.shutdown()


class _Dagster(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


def asked(url: str, **headers: str) -> requests.Response:
    with requests.Session() as plain:
        plain.trust_env = False
        plain.verify = False
        return plain.get(url, headers=headers, allow_redirects=False, timeout=60)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
class TestProxy:
    @pytest.mark.parametrize(
        ("path", "role", "status"),
        [
            ("dagster", "engineer", 200),
            ("dagster", "auditor", 403),
            ("dagster", "reader", 403),
            ("dagster-readonly", "auditor", 200),
            ("dagster-readonly", "reader", 403),
        ],
    )
    def test_dagster_is_reached_by_its_roles_alone(
        self, app: Flask, through_proxy: str, path: str, role: str, status: int
    ) -> None:
        assert asked(f"{through_proxy}/{path}/runs", **bearer(app, role)).status_code == status

    def test_who_is_not_signed_in_is_sent_to_sign_in(self, through_proxy: str) -> None:
        answer = asked(f"{through_proxy}/dagster/runs", Accept="text/html")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/sign-in?next=/dagster/runs")

    @pytest.mark.parametrize("path", ["dagster/runs", "dagster-readonly/runs", "account"])
    def test_nobody_becomes_another_by_a_header(self, through_proxy: str, path: str) -> None:
        answer = asked(f"{through_proxy}/{path}", **{"X-Remote-User": "engineer", "Accept": "text/html"})
        assert answer.status_code == 302
        assert "/sign-in?next=" in answer.headers["Location"]

    def test_the_question_itself_is_not_for_the_outside(self, app: Flask, through_proxy: str) -> None:
        assert asked(f"{through_proxy}/allowed/engineer", **bearer(app, "engineer")).status_code == 404
