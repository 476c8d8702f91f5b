"""`radia doctor`: what an administrator would look at, one line a finding, with what to do about it.

Nothing is changed. Of the network only the servers of the settings are asked; whether this process could reach out is
found by opening a connection to a few public addresses and closing it without a word, which can be left out.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from radia import __version__
from radia.errors import RadiaError
from radia.settings import (
    QUIET,
    Settings,
    addresses,
    database_url,
    key_from_environment,
    ledger_key_from_environment,
    load_settings,
)
from radia.workspace import Workspace

State = Literal["ok", "warn", "fail"]
LEAST_FREE = 20_000_000_000
"""Bytes free on a disk of the site below which the doctor warns."""
NEWER = "install the version that migrated it again, or restore the backup taken before (docs/upgrading.md)"
OUTSIDE = (("1.1.1.1", 443), ("8.8.8.8", 53), ("9.9.9.9", 443))
"""Public addresses that nothing of RADIA speaks to: whether they can be reached says whether anything could be."""
SECONDS = 3.0
_CERTIFICATE_DAYS = 30
_CLOCK_SECONDS = 60
"""More than this is no delay of an answer."""
_CLOCK_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. advice: what to do; empty where it is well."""

    subject: str
    state: State
    found: str
    advice: str = ""


def examine(site: Workspace, *, reach_out: bool = True) -> list[Finding]:
    """Every finding, in the order in which one would look. reach_out: try whether a connection to outside opens."""
    try:
        settings = load_settings()
    except RadiaError as error:
        return [Finding("settings", "fail", str(error), "mend params.yaml, and ask again")]
    looks: list[Callable[[], Iterable[Finding]]] = [
        _versions,
        lambda: _disks(site, settings),
        lambda: _device(settings),
        lambda: _keys(site),
        lambda: _databases(site),
        _servers,
        lambda: _people(site, settings),
        lambda: _receiver(settings),
        _certificate,
        _clock,
        lambda: _other_clocks(settings),
        lambda: _telemetry(site),
    ]
    found = [finding for look in looks for finding in _told(look)]
    return found + (list(_egress()) if reach_out else [])


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among findings."""
    states = {one.state for one in findings}
    return "fail" if "fail" in states else "warn" if "warn" in states else "ok"


def _told(look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings; what could not be looked at is one."""
    try:
        return list(look())
    except RadiaError as error:
        return [Finding("not looked at", "fail", str(error), "mend what it names, and ask again")]


# --- this machine ---------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("versions", "ok", f"RADIA {__version__}, Python {python}")
    wrong = [text for requirement in importlib.metadata.requires("radia") or [] if (text := _unmet(requirement))]
    if wrong:
        yield Finding("packages", "fail", ", ".join(wrong), "install again from requirements.lock")
    else:
        yield Finding("packages", "ok", "every one is of a version that RADIA asks for")
    needed = {"git": True, "pg_dump": database_url("ledger") is not None}
    for program in [name for name, wanted in needed.items() if wanted and shutil.which(name) is None]:
        yield Finding("programs", "warn", f"{program} is not installed", f"apt-get install {_package_of(program)}")


def _package_of(program: str) -> str:
    return {"pg_dump": "postgresql-client"}.get(program, program)


def _unmet(requirement: str) -> str:
    """What is wrong with one requirement of the package; empty where nothing is, or where it is of an extra."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return ""
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    return "" if wanted.specifier.contains(version, prereleases=True) else f"{wanted.name} is {version}"


def _disks(site: Workspace, settings: Settings) -> Iterator[Finding]:
    if not site.root.is_dir():
        yield Finding("data folder", "warn", f"{site.root} does not exist yet", "the first run makes it")
        return
    writable = os.access(site.root, os.W_OK)
    yield Finding("data folder", "ok" if writable else "warn", str(site.root.resolve()), _if(not writable, "read-only"))
    least = settings.intake.receiver.min_free_bytes
    seen = set()
    for folder in (site.root, site.landing, site.archive, site.mlflow_artifacts, site.dagster_home):
        if not folder.is_dir() or (device := folder.stat().st_dev) in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(folder)
        state: State = "fail" if usage.free < least else "warn" if usage.free < LEAST_FREE else "ok"
        words = f"{usage.free / 1e9:.0f} GB free of {usage.total / 1e9:.0f} under {folder.name or folder}/"
        yield Finding("disk", state, words, _if(state != "ok", "free some: `radia retention` names what may go"))


def _device(settings: Settings) -> Iterator[Finding]:
    """What NVIDIA's driver says, beside what training asks for."""
    wanted, cards = settings.finetune.device, _cards()
    for card in cards:
        yield Finding("GPU", "ok", card)
    if not cards and wanted.startswith("cuda"):
        yield Finding("GPU", "fail", f"finetune.device is {wanted}, and there is none", "see docker-compose.gpu.yml")
    elif not cards:
        yield Finding("GPU", "ok", f"none; {os.cpu_count()} processors train, which takes longer")


def _cards() -> list[str]:
    """A line a card: name, memory, memory free."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    asked = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30)  # noqa: S603
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _clock() -> Iterator[Finding]:
    """Whether the kernel knows its clock to be synchronised."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, of which nothing is set: it is only asked
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if state < 0:
        yield Finding("clock", "warn", f"{now}; the kernel does not say whether it is synchronised", "ask the host")
    elif state == _CLOCK_UNSYNCHRONISED:
        yield Finding("clock", "warn", f"{now}; not synchronised", "turn on chrony or systemd-timesyncd on the host")
    else:
        yield Finding("clock", "ok", f"{now}; synchronised")


def _other_clocks(settings: Settings) -> Iterator[Finding]:
    """What time the PACS of the settings say it is: days of a query and times of events are this machine's."""
    for pacs in settings.intake.pacs:
        ahead = _ahead_of(pacs.url)
        if ahead is None:
            yield Finding("PACS", "warn", f"{pacs.site}: does not answer, or not with the time", "see intake.pacs")
            continue
        wrong = abs(ahead) > _CLOCK_SECONDS
        words = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the PACS of {pacs.site}"
        yield Finding("clock", "fail" if wrong else "ok", words, _if(wrong, "one of the two is wrong: mend it"))


def _ahead_of(url: str) -> float | None:
    """Seconds that this clock is ahead of a web server's (its `Date`), past proxies and redirects; None: unknown."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=SECONDS)) as line:
            line.request("HEAD", parts.path or "/")
            theirs = parsedate_to_datetime(line.getresponse().headers["Date"])
    except (OSError, HTTPException, ValueError, TypeError):
        return None
    return (datetime.now(UTC) - theirs).total_seconds()


# --- keys, databases, servers ---------------------------------------------------------------------------------------


def _keys(site: Workspace) -> Iterator[Finding]:
    given = {site.key_file: key_from_environment(), site.ledger_key_file: ledger_key_from_environment()}
    for path, key in given.items():
        if key is not None:
            yield Finding("key", "ok", f"{path.stem}: a secret of the environment")
        elif path.is_file():
            yield _closed("key", path)
        else:
            yield Finding("key", "ok", f"{path.stem}: not there yet, made when it is first needed")
    if (cookies := site.web / "cookies.key").is_file():
        yield _closed("key", cookies)
    secrets = {name: Path(value) for name, value in os.environ.items() if _is_secret(name) and value}
    for name, path in sorted(secrets.items()):
        if not path.is_file() or not os.access(path, os.R_OK):
            yield Finding("secret", "fail", f"the file of {name} cannot be read", "give it to the service's user")
        else:
            yield _closed("secret", path)
    for folder in (site.landing, site.quarantine, site.key_file.parent, site.web):
        if folder.is_dir():
            yield _closed("folder", folder)


def _is_secret(name: str) -> bool:
    ours = name.startswith(("RADIA_", "MLFLOW_")) and name.endswith("_FILE")
    return name == "PGPASSFILE" or (ours and name not in ("RADIA_PARAMS_FILE", "RADIA_TLS_CERTIFICATE_FILE"))


def _closed(subject: str, path: Path) -> Finding:
    """Whether its owner, or its group at most for a folder, can read it alone."""
    mode = stat.S_IMODE(path.stat().st_mode)
    open_to = mode & (0o077 if path.is_file() else 0o007)
    advice = _if(bool(open_to), f"chmod {'600' if path.is_file() else '700'} {path}")
    return Finding(subject, "fail" if open_to else "ok", f"{path.name}: mode {mode:04o}", advice)


def _databases(site: Workspace) -> Iterator[Finding]:
    from radia.ledger import open_ledger
    from radia.operations.schema import schemas, sqlite_file

    for schema in schemas(site):
        words = f"{schema.name}: {schema.found or 'empty'}"
        if schema.newer:
            yield Finding("schema", "fail", f"{words}, newer than {schema.wanted}", NEWER)
        elif schema.pending:
            yield Finding("schema", "fail", f"{words} → {schema.wanted}", "radia backup, then radia migrate")
        else:
            yield Finding("schema", "ok", words)
    if database_url("ledger") is None and not sqlite_file(site.ledger_url).is_file():
        return
    with closing(open_ledger(site, read_only=True)) as ledger:
        newest = next(iter(ledger.events(newest_first=True, limit=1)), None)
    if newest is not None:
        ahead = datetime.fromisoformat(newest.at) > datetime.now(UTC)
        advice = _if(ahead, "its newest event is of the future: mend the clock")
        yield Finding(
            "ledger", "warn" if ahead else "ok", f"{newest.sequence} events, the newest of {newest.at}", advice
        )


def _servers() -> Iterator[Finding]:
    """Those of RADIA_ADDRESSES and of the databases; without, those that `radia up` starts, which may rest."""
    from radia.services import SERVICES

    served = addresses()
    usual = {
        one.name: f"127.0.0.1:{one.port}" for one in SERVICES if one.port and one.name not in ("receiver", "proxy")
    }
    answers = {name: _answers(address) for name, address in (served or usual).items()}
    if not served and not any(answers.values()):
        yield Finding("servers", "ok", "none runs on this machine; `radia up` starts them")
        return
    for name, answer in answers.items():
        state: State = "ok" if answer else "fail" if served else "warn"
        yield Finding(
            "server", state, f"{name} {'listens' if answer else 'does not listen'}", _if(not answer, "its log")
        )
    if url := os.environ.get("MLFLOW_TRACKING_URI"):
        parts = urlsplit(url)
        if parts.hostname and not _answers(f"{parts.hostname}:{parts.port or 443}"):
            yield Finding("server", "fail", "MLflow does not listen", "see MLFLOW_TRACKING_URI")


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def _people(site: Workspace, settings: Settings) -> Iterator[Finding]:
    if (site.web / "people.db").is_file():
        from radia.web.accounts import Accounts

        active = [one for one in Accounts(site.web / "people.db").all() if one.active]
        yield Finding(
            "people", "ok" if active else "warn", f"{len(active)} accounts", _if(not active, "radia people add")
        )
    if addresses() and not settings.web.https:
        yield Finding(
            "web", "fail", "web.https is off behind a proxy that speaks TLS", "web: {https: true} in params.yaml"
        )
    if addresses() and not settings.web.trusted_proxies:
        words = "wrong passwords count as of one address: web.trusted_proxies does not name the proxy"
        yield Finding("web", "warn", words, "web: {trusted_proxies: [proxy]} in params.yaml")


def _receiver(settings: Settings) -> Iterator[Finding]:
    receiver = settings.intake.receiver
    if receiver.senders and receiver.tls_certificate is None:
        yield Finding(
            "receiver", "warn", "DICOM is received without TLS", "set intake.receiver.tls_certificate, or a VLAN"
        )
    store = settings.web.pacs
    if store is not None and not (store.tls or store.tls_authority or store.tls_certificate):
        yield Finding("PACS", "warn", "reports are sent without TLS", "set web.pacs.tls, or a VLAN")


def _certificate() -> Iterator[Finding]:
    path = Path(os.environ.get("RADIA_TLS_CERTIFICATE_FILE", ""))
    if not path.is_file():
        return
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    own = certificate.issuer == certificate.subject
    state: State = "fail" if days < 0 else "warn" if own or days < _CERTIFICATE_DAYS else "ok"
    words = f"valid for {days} days{', signed by itself' if own else ''}"
    yield Finding("certificate", state, words, _if(state != "ok", "put the hospital's own in its place"))


# --- nothing leaves -------------------------------------------------------------------------------------------------


def _telemetry(site: Workspace) -> Iterator[Finding]:
    import yaml

    on = [name for name, value in QUIET.items() if os.environ.get(name) != value]
    config = site.dagster_home / "dagster.yaml"
    if config.is_file() and yaml.safe_load(config.read_text()).get("telemetry", {}).get("enabled", True):
        on.append("dagster.yaml")
    words = f"on: {', '.join(on)}" if on else f"off: {len(QUIET)} switches of dependencies, and dagster.yaml"
    yield Finding("telemetry", "fail" if on else "ok", words, _if(bool(on), "unset them: RADIA turns them off itself"))


def _egress() -> Iterator[Finding]:
    """Whether a connection from here to outside opens. Names are asked for too: a resolver is a way out as well."""
    reached = [f"{host}:{port}" for host, port in OUTSIDE if _answers(f"{host}:{port}")]
    tried = ", ".join(f"{host}:{port}" for host, port in OUTSIDE)
    if reached:
        served = bool(addresses())
        advice = "this service stands on a network with a way out: docker-compose.yml puts it on `inside`"
        words = f"a connection to {', '.join(reached)} opened (tried {tried}; nothing was sent)"
        yield Finding(
            "no egress", "fail" if served else "warn", words, advice if served else "a firewall rule, if asked"
        )
        return
    yield Finding(
        "no egress", "ok", f"no connection opened (tried {tried}){'' if _resolves() else ', no name resolved'}"
    )


def _resolves() -> bool:
    try:
        socket.getaddrinfo("example.org", 443)
    except OSError:
        return False
    return True


def _if(condition: bool, text: str) -> str:
    return text if condition else ""
