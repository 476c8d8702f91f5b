"""The reverse proxy: TLS for every page, and the web app's sign-in in front of Dagster, which has none.

nginx, as it comes with Debian. Its log says which area was asked for, and no more of the address: people type names
and record numbers into it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import mkdtemp

from radia.errors import SettingsError
from radia.settings import load_settings, tls_files

DAGSTER, DAGSTER_READONLY, MLFLOW, HEALTH = "/dagster", "/dagster-readonly", "/mlflow", "/proxy-health"


TRUSTED = (
    "Forwarded",
    "Remote-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-User",
    "X-Forwarded-Email",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Real-IP",
    "X-Remote-User",
    "X-Script-Name",
)
"""Headers that some server takes for the word of a proxy: a client's are blanked, as is that of `web.user_header`."""


def command(host: str, port: int, address: Callable[[str], str]) -> tuple[str, ...]:
    """nginx with its configuration written to a temporary folder. Raises SettingsError."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        raise SettingsError("nginx is not installed: apt-get install nginx-light")
    folder = Path(mkdtemp(prefix="radia-proxy-"))
    config = folder / "nginx.conf"
    config.write_text(configuration(folder, host, port, address))
    return (binary, "-c", str(config), "-p", str(folder), "-e", "stderr", "-g", "daemon off;")


def configuration(folder: Path, host: str, port: int, address: Callable[[str], str]) -> str:
    """nginx.conf. folder: what it may write to. Raises SettingsError."""
    certificate, key = tls_files()
    user_header = load_settings().web.user_header
    return Template(files("radia.services").joinpath("nginx.conf").read_text()).substitute(
        folder=folder,
        blanked=" ".join(f'proxy_set_header {name} "";' for name in sorted({*TRUSTED, user_header})),
        listen=f"{host}:{port}",
        health=HEALTH,
        dagster_path=DAGSTER,
        readonly_path=DAGSTER_READONLY,
        mlflow_path=MLFLOW,
        certificate=certificate,
        key=key,
        web=address("web"),
        mlflow=address("mlflow"),
        dagster=address("dagster-webserver"),
        dagster_readonly=address("dagster-webserver-readonly"),
    )
