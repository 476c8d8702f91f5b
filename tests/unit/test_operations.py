"""Services' commands, secrets, roles and schemas of databases, logs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
from alembic import command

from radia.errors import LedgerError, MigrationError, SettingsError
from radia.ledger import Ledger
from radia.operations.logs import JsonLines
from radia.operations.migration import upgrade_ledger
from radia.operations.schema import config_of, schemas
from radia.operations.secret_files import PASSFILES, read_passwords, write_secrets
from radia.services import SERVICES, Place, find, proxy
from radia.services.instance import configuration
from radia.settings import database_url
from radia.workspace import Workspace
from tests.unit.test_intake_network import free_port, wait_until
from tests.unit.test_ledger_postgres import BINARIES

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def shape(url: str) -> set[tuple[str, str]]:
    """Tables, indexes and triggers of a SQLite ledger, but for Alembic's own."""
    with sa.create_engine(url).connect() as connection:
        rows = connection.exec_driver_sql("SELECT type, name FROM sqlite_master WHERE name NOT LIKE '%revision%'")
        return {(kind, name) for kind, name in rows}


def first_ledger(url: str) -> None:
    """A ledger as the first migration made it."""
    config = config_of("ledger")
    with sa.create_engine(url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "ledger_0001")


class TestSchema:
    def test_migrations_make_the_ledger_that_the_code_makes(self, tmp_path: Path) -> None:
        made, migrated = (f"sqlite:///{tmp_path / name}.db" for name in ("made", "migrated"))
        Ledger(made)
        upgrade_ledger(migrated)
        assert shape(made) == shape(migrated)
        Ledger(migrated).append("read", actor="Dr Côté", subjects=["P1"])
        assert Ledger(migrated).verify().events == 1

    def test_a_ledger_of_before_the_migrations_is_recognised_and_kept(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        ledger = Ledger(site.ledger_url)
        ledger.append("read", actor="Dr Côté")
        assert upgrade_ledger(site.ledger_url).found == "ledger_0002"
        assert upgrade_ledger(site.ledger_url).pending is False
        assert [one.pending for one in schemas(site) if one.name == "ledger"] == [False]
        assert Ledger(site.ledger_url).verify().events == 1

    def test_a_ledger_of_the_first_format_becomes_one_of_this_and_keeps_its_events(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        first_ledger(url)
        assert upgrade_ledger(url).found == "ledger_0001"
        assert upgrade_ledger(url).found == "ledger_0002"
        assert Ledger(url).verify().events == 0

    def test_a_ledger_of_a_format_to_come_is_left_alone(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        Ledger(url)
        with sa.create_engine(url).begin() as connection:
            connection.exec_driver_sql("INSERT INTO ledger_format VALUES (9)")
        with pytest.raises(MigrationError, match="format 9"):
            upgrade_ledger(url)


class TestSecrets:
    def test_are_made_once_for_their_owner_alone(self, tmp_path: Path) -> None:
        new = write_secrets(tmp_path / "secrets")
        files = sorted((tmp_path / "secrets").iterdir())
        assert sorted(new) == [file.name for file in files]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        before = {file: file.read_text() for file in files}
        assert write_secrets(tmp_path / "secrets") == []
        assert {file: file.read_text() for file in files} == before

    def test_a_service_holds_the_passwords_it_needs_and_no_other(self, tmp_path: Path) -> None:
        write_secrets(tmp_path)
        for name, roles in PASSFILES.items():
            assert set(read_passwords(tmp_path / name)) == set(roles)

    def test_half_a_set_of_passwords_is_refused(self, tmp_path: Path) -> None:
        write_secrets(tmp_path)
        (tmp_path / "pgpass_web").unlink()
        with pytest.raises(SettingsError, match="lacks pgpass_web"):
            write_secrets(tmp_path)


class TestLogs:
    def line(self, logger: str, message: str, *arguments: object) -> dict[str, object]:
        record = logging.LogRecord(logger, logging.WARNING, "/x/y.py", 7, message, arguments, None)
        return json.loads(JsonLines("web").format(record))  # type: ignore[no-any-return]

    def test_a_library_that_sees_patients_says_where_and_not_what(self) -> None:
        line = self.line("pydicom.valuerep", "Invalid value for VR PN: %s", "Tremblay^Marie")
        assert "Tremblay" not in json.dumps(line)
        assert line["place"] == "y.py:7"

    def test_radia_speaks_and_hides_passwords_of_addresses(self) -> None:
        line = self.line("radia.web", "no answer from postgresql://radia:very-secret@db/ledger")
        assert line["message"] == "no answer from postgresql://radia:***@db/ledger"

    def test_an_error_is_told_without_its_text(self) -> None:
        try:
            raise ValueError("Tremblay^Marie")
        except ValueError:
            record = logging.LogRecord("radia", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
        told = JsonLines().format(record)
        assert "ValueError at test_operations.py" in told
        assert "Tremblay" not in told


class TestCommands:
    @pytest.fixture
    def secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "secrets"
        write_secrets(folder)
        monkeypatch.setenv("DAGSTER_HOME", "")
        for variable, name in {
            "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": "mlflow_admin_password",
            "MLFLOW_FLASK_SERVER_SECRET_KEY_FILE": "mlflow_secret_key",
            "RADIA_TLS_CERTIFICATE_FILE": "tls_certificate",
            "RADIA_TLS_KEY_FILE": "tls_key",
        }.items():
            monkeypatch.setenv(variable, str(folder / name))
        return folder

    @pytest.mark.parametrize("name", [service.name for service in SERVICES if service.name != "proxy"])
    def test_no_secret_stands_in_a_command_line(self, name: str, secrets: Path, tmp_path: Path) -> None:
        service = find(name)
        line = " ".join(service.command(Place(Workspace(tmp_path), port=service.port)).arguments)
        values = [file.read_text().strip() for file in secrets.iterdir() if not file.name.startswith(("pgpass", "tls"))]
        assert not [value for value in values if value in line]

    @pytest.mark.parametrize("name", ["dagster-webserver", "dagster-daemon"])
    def test_dagster_knows_the_code_by_one_name_wherever_it_is_served(
        self, name: str, secrets: Path, tmp_path: Path
    ) -> None:
        """Sensors that were turned on are remembered by the name: it must not change with the port."""
        here = Place(Workspace(tmp_path), elsewhere={"dagster-code": "elsewhere:4711"})
        arguments = find(name).command(here).arguments
        (server,) = json.loads(Path(arguments[arguments.index("--workspace") + 1]).read_text())["load_from"]
        assert server["grpc_server"] == {"host": "elsewhere", "port": 4711, "location_name": "radia"}

    def test_dagster_speaks_to_postgresql_through_the_driver_that_its_notify_needs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RADIA_DATABASE", "postgresql://db:5432")
        storage = configuration()["storage"]
        assert storage == {"postgres": {"postgres_url": "postgresql+psycopg2://dagster@db:5432/dagster"}}

    def test_a_service_started_in_the_background_of_a_shell_ends_when_it_is_told_to(self, tmp_path: Path) -> None:
        """Such a shell has SIGINT ignored, and Dagster takes SIGTERM for SIGINT."""
        program = (
            "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from radia.services import catalogue as c; "
            "ask = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'; "
            "import sys; asked = c.Service('x', '', 0, lambda here: c.Command((sys.executable, '-c', ask))); "
            "c.replace_process(asked, None)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout.strip() == "True", done.stderr

    def test_mlflow_asks_who_one_is_unless_it_is_open(self, secrets: Path, tmp_path: Path) -> None:
        served, opened = (find("mlflow").command(Place(Workspace(tmp_path), port=5000, open=o)) for o in (False, True))
        assert "basic-auth" in served.arguments
        assert "basic-auth" not in opened.arguments

    def test_mlflow_without_its_secrets_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD_FILE", raising=False)
        with pytest.raises(SettingsError, match="MLFLOW_AUTH_ADMIN_PASSWORD"):
            find("mlflow").command(Place(Workspace(tmp_path), port=5000))

    @pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
    def test_nginx_finds_its_configuration_whole(self, secrets: Path, tmp_path: Path) -> None:
        config = tmp_path / "nginx.conf"
        config.write_text(proxy.configuration(tmp_path, "127.0.0.1", 18443, lambda _: "127.0.0.1:9"))
        command = [str(NGINX), "-t", "-c", str(config), "-p", str(tmp_path), "-e", "stderr"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_no_header_that_some_server_believes_a_proxy_comes_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[dict[str, str]] = []

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(401 if "nobody" in self.headers.get("Cookie", "") else 204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            return

    write_secrets(tmp_path / "secrets")
    (tmp_path / "params.yaml").write_text("web: {user_header: X-Hospital-Person}")
    monkeypatch.setenv("RADIA_PARAMS", str(tmp_path / "params.yaml"))
    monkeypatch.setenv("RADIA_TLS_CERTIFICATE_FILE", str(tmp_path / "secrets" / "tls_certificate"))
    monkeypatch.setenv("RADIA_TLS_KEY_FILE", str(tmp_path / "secrets" / "tls_key"))
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(proxy.configuration(tmp_path, "127.0.0.1", port, lambda _: f"127.0.0.1:{upstream.server_port}"))
    assert NGINX is not None
    nginx = subprocess.Popen(
        [NGINX, "-c", str(config), "-p", str(tmp_path), "-e", "stderr", "-g", "daemon off;"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        forged = dict.fromkeys((*proxy.TRUSTED, "X-Hospital-Person", "X-Forwarded-For"), "admin")
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        for path in ("/", "/dagster/", "/dagster-readonly/", "/mlflow/"):
            requests.get(f"https://127.0.0.1:{port}{path}", headers=forged, verify=False, timeout=30)
        assert len(heard) == 6  # two of them ask the web app first
        outside = {"Host": "radia.hospital", "Cookie": "nobody"}  # on 443 of the host, say, where people know it
        page = f"https://127.0.0.1:{port}/dagster/"
        told = requests.get(page, headers=outside, verify=False, timeout=30, allow_redirects=False)
        assert told.headers["Location"] == "/sign-in?next=/dagster/"
    finally:
        nginx.terminate()
        nginx.wait()
        upstream.shutdown()
    for headers in heard:
        assert "admin" not in headers.values()
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "https"


@contextmanager
def empty_server() -> Iterator[Path]:
    """An empty PostgreSQL that asks for passwords, on a socket in its own folder."""
    if BINARIES is None:
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    folder = Path(tempfile.mkdtemp(prefix="radia-pg-"))
    write_secrets(folder / "secrets")
    shutil.copyfile(folder / "secrets" / "postgres_password", folder / "password")
    run_as: dict[str, object] = {}
    if os.geteuid() == 0:
        run_as = {"user": "postgres", "group": "postgres"}
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    data, ctl = str(folder / "data"), str(BINARIES / "pg_ctl")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as)  # type: ignore[call-overload]

    made = ("-D", data, "-U", "radia", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
    run(str(BINARIES / "initdb"), *made)
    run(ctl, "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield folder
    finally:
        run(ctl, "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[Path]:
    with empty_server() as folder:
        yield folder


def test_services_may_add_to_the_ledger_and_neither_change_it_nor_open_its_guards(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radia.operations.databases import prepare

    monkeypatch.setenv("RADIA_DATABASE", f"postgresql://?host={server}")
    monkeypatch.setenv("PGPASSFILE", str(server / "secrets" / "pgpass_admin"))
    assert len(prepare(server / "secrets" / "pgpass_admin")) == 6
    assert prepare(server / "secrets" / "pgpass_admin") == []
    monkeypatch.setenv("PGPASSFILE", str(server / "secrets" / "pgpass_web"))
    url = database_url("ledger")
    assert url is not None
    ledger = Ledger(url)
    ledger.append("read", actor="Dr Côté", subjects=["P1"])
    assert ledger.verify().events == 1
    for statement in ("DELETE FROM ledger_events", "ALTER TABLE ledger_events DISABLE TRIGGER USER"):
        with (
            sa.create_engine(url).connect() as connection,
            pytest.raises(sa.exc.ProgrammingError, match=r"denied|owner"),
        ):
            connection.exec_driver_sql(statement)
    with pytest.raises(LedgerError):
        Ledger(url.replace("ledger@", "radia@"))  # the web app's file holds no password of the administrator
