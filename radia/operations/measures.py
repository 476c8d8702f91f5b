"""What Prometheus is told of the site beside what its servers count: disks, quarantine, ledger, candidates, services.

`page` serves it. Everything is looked up when it is asked for, from what is on the disk and in the ledger, and nothing
is changed. Each source is asked on its own: one that is down or hangs is said to be down (`radia_source_up`), and the
others answer all the same. Labels are names of folders, services and sources: never a patient's value or a person.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, Thread
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from radia.errors import SettingsError
from radia.settings import addresses, database_url, ledger_anchor_file, measures_address
from radia.workspace import Workspace

if TYPE_CHECKING:
    from radia.ledger import Event, Ledger

logger = logging.getLogger(__name__)
KEPT_SECONDS = 10.0
"""An answer is given again for so long: however often it is asked, the site is looked at no more often."""
PATIENCE_SECONDS = 6.0
"""How long the sources may take together; Prometheus itself waits 10 s."""


@contextmanager
def page(service: str, registry: CollectorRegistry) -> Iterator[int | None]:
    """Serves a registry under /metrics where `$RADIA_METRICS` names an address of the service; yields its port.

    Raises SettingsError.
    """
    from prometheus_client import start_http_server

    address = measures_address(service)
    if address is None:
        yield None
        return
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(f"RADIA_METRICS: {service} cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def gauge(name: str, words: str, labels: Sequence[str] = (), value: float | None = None) -> GaugeMetricFamily:
    """A figure, or where it has labels the family to which its figures are added."""
    return GaugeMetricFamily(name, words, labels=labels or None, value=value)


@dataclass(frozen=True)
class Source:
    """Where figures come from: a name, and how to ask. Whatever it raises means that it is down."""

    name: str
    read: Callable[[], Iterable[Metric]]


class Sources(Collector):
    """All sources as one collector, each asked in a thread of its own, at most once in `KEPT_SECONDS`."""

    def __init__(
        self, sources: Sequence[Source], *, kept: float = KEPT_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._sources, self._kept, self._patience = sources, kept, patience
        self._lock = Lock()
        self._answer: list[Metric] = []
        self._asked_at: float | None = None
        self._asked: dict[str, _Asked] = {}
        self._down: set[str] = set()

    def describe(self) -> list[Metric]:
        """Nothing: nobody is asked before Prometheus asks."""
        return []

    def collect(self) -> list[Metric]:
        """What the sources said, and of each whether it answered and how long it took."""
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at >= self._kept:
                self._answer, self._asked_at = self._ask(), time.monotonic()
            return self._answer

    def _ask(self) -> list[Metric]:
        deadline = time.monotonic() + self._patience
        for source in self._sources:
            if source.name not in self._asked or self._asked[source.name].ended:  # what was said late is of then
                self._asked[source.name] = _Asked(source)
        up = gauge("radia_source_up", "1: this source of figures answered; 0: its figures are missing", ["source"])
        took = gauge("radia_source_seconds", "Seconds that it took", ["source"])
        said: list[Metric] = []
        for source in self._sources:
            asked = self._asked[source.name]
            found = asked.answer(deadline)
            if asked.ended:  # one that hangs is not asked once more beside
                del self._asked[source.name]
            self._note(source.name, found is None, asked.error or "no answer in time")
            up.add_metric([source.name], float(found is not None))
            took.add_metric([source.name], asked.seconds)
            said += found or []
        return [up, took, *said]

    def _note(self, name: str, down: bool, why: str) -> None:
        """Says once in the log that a source went away, and that it is back."""
        if down and name not in self._down:
            logger.warning("metrics: %s does not answer: %s", name, why)
            self._down.add(name)
        elif not down and name in self._down:
            logger.warning("metrics: %s answers again", name)
            self._down.remove(name)


class _Asked:
    """One question to a source, under way."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._began = time.monotonic()
        self._ended_at: float | None = None
        self._found: list[Metric] | None = None
        self.error = ""
        self._thread = Thread(target=self._read, name=f"measures-{source.name}", daemon=True)
        self._thread.start()

    def answer(self, deadline: float) -> list[Metric] | None:
        """What it said until then; None where it failed or said nothing."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._found

    @property
    def ended(self) -> bool:
        """Whether it answered or failed."""
        return not self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return (self._ended_at or time.monotonic()) - self._began

    def _read(self) -> None:
        try:
            self._found = list(self._source.read())
        except Exception as error:  # whatever it is, the page says that this source is down, and the log why
            self.error = type(error).__name__
        self._ended_at = time.monotonic()


# --- the sources of a site ------------------------------------------------------------------------------------------


def site_sources(site: Workspace) -> list[Source]:
    """Those that need nothing but the data folder, the ledger and the network inside."""
    return [
        Source("disks", lambda: disks(site)),
        Source("quarantine", lambda: quarantine(site)),
        Source("ledger", lambda: ledger(site)),
        Source("services", services),
    ]


def disks(site: Workspace) -> Iterator[Metric]:
    """Free bytes under each folder that may be a disk of its own."""
    free = gauge("radia_disk_free_bytes", "Bytes free on the disk of a folder", ["folder"])
    total = gauge("radia_disk_bytes", "Bytes of that disk", ["folder"])
    folders = {
        "data": site.root,
        "landing": site.landing,
        "quarantine": site.quarantine,
        "archive": site.archive,
        "dagster": site.dagster_home,
        "anchor": ledger_anchor_file(site).parent,
    }
    for name, folder in folders.items():
        if folder.is_dir():
            usage = shutil.disk_usage(folder)
            free.add_metric([name], usage.free)
            total.add_metric([name], usage.total)
    yield from (free, total)


def quarantine(site: Workspace) -> Iterator[Metric]:
    """How many refused files are kept. Their reasons stay with them."""
    count = 0
    if site.quarantine.is_dir():
        for _, folders, names in os.walk(site.quarantine, onerror=_fail):
            folders[:] = [name for name in folders if not name.startswith(".")]  # half written
            count += sum(name != "reasons.json" for name in names)
    yield gauge("radia_quarantine_files", "Refused files that are kept", value=count)


def _fail(error: OSError) -> None:
    raise error


def ledger(site: Workspace) -> Iterator[Metric]:
    """The ledger beside its anchor, the last backup, and the candidates that nobody answered. Raises LedgerError."""
    from radia.ledger import Action, Anchor, Event, open_ledger
    from radia.operations.schema import sqlite_file

    file = ledger_anchor_file(site)
    anchored = Anchor.parse(file.read_text()).sequence if file.is_file() else 0
    yield gauge("radia_ledger_anchored_events", "Events that the anchor proves", value=anchored)
    if file.is_file():
        yield gauge(
            "radia_ledger_anchor_timestamp_seconds", "When the anchor was last written", value=file.stat().st_mtime
        )
    newest, backup, waiting = None, None, list[Event]()
    if database_url("ledger") is not None or sqlite_file(site.ledger_url).is_file():  # the first event makes it
        with closing(open_ledger(site, read_only=True)) as opened:
            newest = next(iter(opened.events(newest_first=True, limit=1)), None)
            backup = opened.last(Action.BACKUP)
            waiting = unanswered(opened)
    yield gauge("radia_ledger_events", "Events; fewer than the anchor proves: some are gone", value=_sequence(newest))
    if newest is not None:
        yield gauge("radia_ledger_event_timestamp_seconds", "When the newest was written", value=_moment(newest))
    if backup is not None:
        yield gauge("radia_backup_timestamp_seconds", "When the last backup was made", value=_moment(backup))
    oldest = max((time.time() - _moment(event) for event in waiting), default=0.0)
    yield gauge("radia_candidates_waiting", "Candidates that nobody approved or rejected", value=len(waiting))
    yield gauge("radia_candidates_waiting_oldest_seconds", "Age of the oldest; 0: none waits", value=max(0.0, oldest))


def unanswered(ledger: Ledger) -> list[Event]:
    """Registrations of candidates that no person approved or rejected. An approval that was refused is no answer."""
    from radia.ledger import Action
    from radia.registry import CANDIDATE

    waiting: dict[str, Event] = {}
    for event in ledger.events(action=[Action.REGISTER, Action.PROMOTE, Action.REJECT]):
        if event.action == Action.REGISTER:
            waiting |= {name: event for name in event.outputs if name.startswith(f"{CANDIDATE}/")}
        elif "refused" not in event.parameters:
            for name in event.inputs:
                waiting.pop(name, None)
    return list(waiting.values())


def services() -> Iterator[Metric]:
    """Whether the services of `$RADIA_ADDRESSES` listen."""
    listens = gauge("radia_service_listens", "1: a connection to this service opens", ["service"])
    known = addresses()
    with ThreadPoolExecutor(len(known) or 1) as pool:
        for name, answer in zip(known, pool.map(_listens, known.values()), strict=True):
            listens.add_metric([name], float(answer))
    yield listens


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _sequence(event: Event | None) -> int:
    return 0 if event is None else event.sequence


def _moment(event: Event) -> float:
    return datetime.fromisoformat(event.at).timestamp()
