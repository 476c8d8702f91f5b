"""Whether a service is well: its own check, an HTTP answer, or an open port."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from urllib.error import URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from radia.services.catalogue import LOOPBACK, Place, Service

SECONDS = 10.0


def complaint(service: Service, here: Place) -> str:
    """What is wrong with the service on this machine; empty where it is well."""
    if service.check is not None:
        return _run(service, here)
    if not service.health:
        return _connect(here.port)
    path = service.health.removeprefix("/dagster-readonly").removeprefix("/dagster") if here.open else service.health
    return _get(f"{'https' if service.secure else 'http'}://{LOOPBACK}:{here.port}{path}")


def _run(service: Service, here: Place) -> str:
    assert service.check is not None  # noqa: S101  # the caller looked
    command = service.check(here)
    environment = {**os.environ, **command.environment}
    done = subprocess.run(command.arguments, env=environment, capture_output=True, timeout=60)  # noqa: S603
    return "" if done.returncode == 0 else f"its own check ended with {done.returncode}"


def _connect(port: int) -> str:
    with socket.socket() as probe:
        probe.settimeout(SECONDS)
        return "" if probe.connect_ex((LOOPBACK, port)) == 0 else f"nothing listens on port {port}"


def _get(url: str) -> str:
    """Asks this machine itself, past any proxy, and does not check whose certificate it shows."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=unchecked))
    try:
        with opener.open(url, timeout=SECONDS):
            return ""
    except (URLError, OSError) as error:
        return f"{type(error).__name__} at {url}"
