"""Every service's command, address and health check, in one place.

A service is a process of its own, on the same data folder or without one. Its command line holds no secret: libraries
take passwords from files ($PGPASSFILE) or from the environment of their process alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from radia.errors import SettingsError
from radia.services import proxy
from radia.services.instance import dagster_home
from radia.settings import addresses, database_url, public_url, secret, workspace
from radia.workspace import Workspace

LOOPBACK = "127.0.0.1"
LOCATION = "radia"
"""What Dagster calls the pipeline's code."""


@dataclass(frozen=True)
class Command:
    """What a process runs, and what it finds in its environment beside that of its parent."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a service runs.

    host, port: what it listens on. open: nobody is asked who they are, for one machine and its own user.
    elsewhere: `host:port` of other services, where they are not on this machine's default ports.
    """

    site: Workspace
    host: str = LOOPBACK
    port: int = 0
    open: bool = False
    elsewhere: Mapping[str, str] = field(default_factory=addresses)

    def address(self, name: str) -> str:
        """`host:port` of another service."""
        return self.elsewhere.get(name, f"{LOOPBACK}:{find(name).port}")


@dataclass(frozen=True)
class Service:
    """One service: its name in `radia serve`, what it is for, its usual port (0: none), its command.

    health: the path of an HTTP answer that says it is well; empty: that its port opens is enough. page: where a person
    starts in a browser; empty: there is nothing to see. secure: it speaks TLS.
    """

    name: str
    purpose: str
    port: int
    command: Callable[[Place], Command]
    health: str = ""
    page: str = ""
    secure: bool = False
    check: Callable[[Place], Command] | None = None


def find(name: str) -> Service:
    """The service of this name. Raises SettingsError."""
    for service in SERVICES:
        if service.name == name:
            return service
    raise SettingsError(f"there is no service {name}: expected {', '.join(service.name for service in SERVICES)}")


def place(service: Service, *, host: str = LOOPBACK, port: int | None = None, open_: bool = False) -> Place:
    """Where a service runs on the site in force. Raises SettingsError."""
    return Place(workspace(), host, service.port if port is None else port, open_)


def replace_process(service: Service, here: Place) -> None:
    """Becomes the service: this process runs its command from now on. Raises SettingsError."""
    command = service.command(here)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's & ignores it, and Dagster then ignores SIGTERM as well
    os.execvpe(command.arguments[0], command.arguments, {**os.environ, **command.environment})  # noqa: S606


# --- MLflow ---------------------------------------------------------------------------------------------------------


def _mlflow(here: Place) -> Command:
    site, artifacts = here.site, here.site.mlflow_artifacts.resolve()
    store = database_url("mlflow") or site.mlflow_url
    known = {f"{here.host}:{here.port}", f"{LOOPBACK}:{here.port}", f"localhost:{here.port}", here.address("mlflow")}
    known.add(urlsplit(public_url()).netloc)
    arguments = [*_python("mlflow", "server"), "--host", here.host, "--port", str(here.port), "--workers", "1"]
    arguments += ["--backend-store-uri", store, "--allowed-hosts", ",".join(sorted(known))]
    arguments += ["--cors-allowed-origins", public_url()]
    arguments += ["--uvicorn-opts", f"--no-access-log --log-config {_log_config()}"]
    if here.open:
        return Command((*arguments, "--default-artifact-root", artifacts.as_uri()))
    arguments += ["--artifacts-destination", str(artifacts), "--app-name", "basic-auth"]
    return Command(tuple(arguments), _mlflow_accounts(store))


def _mlflow_accounts(store: str) -> dict[str, str]:
    """Basic authentication: whoever has an account may read; who may write what is said in MLflow."""
    wanted = {name: secret(name) for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")}
    if missing := [name for name, value in wanted.items() if not value]:
        raise SettingsError(f"{' and '.join(missing)} not set: name a file in {missing[0]}_FILE (radia secrets DIR)")
    config = Path(mkdtemp(prefix="radia-mlflow-")) / "basic_auth.ini"
    uri = store if store.startswith("postgresql") else store.replace("mlflow.db", "mlflow-accounts.db")
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {uri}\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), **{name: str(value) for name, value in wanted.items()}}


def _log_config() -> Path:
    """uvicorn's logging as JSON lines, in a file, as uvicorn wants it."""
    from radia.operations.logs import configuration

    path = Path(mkdtemp(prefix="radia-log-")) / "logging.json"
    path.write_text(json.dumps(configuration("mlflow")))
    return path


# --- Dagster --------------------------------------------------------------------------------------------------------


def _dagster(here: Place, *arguments: str) -> Command:
    patience = {"DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600"}  # an approval fetches and checks a model: 60 is too few
    return Command(arguments, {"DAGSTER_HOME": str(dagster_home(here.site)), **patience})


def _code_location(here: Place) -> tuple[str, ...]:
    """A file that names the code's server, and calls it radia: Dagster remembers what was turned on by the name."""
    host, port = here.address("dagster-code").rsplit(":", 1)
    server = {"grpc_server": {"host": host, "port": int(port), "location_name": LOCATION}}
    path = Path(mkdtemp(prefix="radia-dagster-")) / "workspace.yaml"
    path.write_text(json.dumps({"load_from": [server]}))
    return ("--workspace", str(path))


def _dagster_code(here: Place) -> Command:
    arguments = ("--host", here.host, "--port", str(here.port), "--module-name", "pipelines.definitions")
    named = ("--location-name", LOCATION, "--use-python-environment-entry-point", "--log-format", "json")
    return _dagster(here, *_python("pipelines", "api", "grpc"), *arguments, *named)  # Dagster's, and a page beside it


def _dagster_code_check(here: Place) -> Command:
    return Command((*_python("dagster", "api", "grpc-health-check"), "--host", here.host, "--port", str(here.port)))


def _webserver(here: Place, prefix: str, *options: str) -> Command:
    arguments = ("--host", here.host, "--port", str(here.port), "--path-prefix", prefix, "--log-format", "json")
    return _dagster(here, *_python("dagster_webserver"), *arguments, *options, *_code_location(here))


def _dagster_webserver(here: Place) -> Command:
    return _webserver(here, "" if here.open else proxy.DAGSTER)


def _dagster_webserver_readonly(here: Place) -> Command:
    return _webserver(here, "" if here.open else proxy.DAGSTER_READONLY, "--read-only")


def _dagster_daemon(here: Place) -> Command:
    return _dagster(here, *_python("dagster._daemon", "run"), "--log-format", "json", *_code_location(here))


def _dagster_daemon_check(here: Place) -> Command:
    return _dagster(here, *_python("dagster._daemon", "liveness-check"))


# --- RADIA's own ----------------------------------------------------------------------------------------------------


def _web(here: Place) -> Command:
    nobody = here.open and not (here.site.web / "people.db").is_file()
    option = "--open-demo" if nobody else "--sign-in"
    return Command((*_python("radia", "web"), "--host", here.host, "--port", str(here.port), option))


def _receiver(here: Place) -> Command:
    return Command((*_python("radia", "intake", "receive"), "--host", here.host, "--port", str(here.port)))


def _proxy(here: Place) -> Command:
    return Command(proxy.command(here.host, here.port, here.address))


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


SERVICES = (
    Service("mlflow", "experiments, candidates, approval", 5000, _mlflow, health="/health", page="/"),
    Service("dagster-code", "the pipeline's code; runs work here", 4000, _dagster_code, check=_dagster_code_check),
    Service(
        "dagster-webserver",
        "the pipeline: assets, runs, schedules",
        3000,
        _dagster_webserver,
        health=f"{proxy.DAGSTER}/server_info",
        page=f"{proxy.DAGSTER}/",
    ),
    Service(
        "dagster-webserver-readonly",
        "the same, for auditors: nothing can be started or changed",
        3001,
        _dagster_webserver_readonly,
        health=f"{proxy.DAGSTER_READONLY}/server_info",
        page=f"{proxy.DAGSTER_READONLY}/",
    ),
    Service("dagster-daemon", "schedules, sensors, the queue of runs", 0, _dagster_daemon, check=_dagster_daemon_check),
    Service("web", "the demo: an X-ray in, 14 probabilities out", 8000, _web, health="/healthz", page="/"),
    Service("receiver", "C-STORE: what PACS and modalities send", 11112, _receiver),
    Service("proxy", "TLS and sign-in in front of all pages", 8443, _proxy, health=proxy.HEALTH, page="/", secure=True),
)
"""All but PostgreSQL, in the order in which they start."""
