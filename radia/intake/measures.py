"""What the DICOM receiver counts for Prometheus: associations, objects, batches, what waits, its disk. No more.

Labels are the sites of the settings and reasons of the closed lists below. Nothing that a sender says is ever a label:
not a calling AE title, not a UID, not a value of an object.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from radia.intake.landing import spooled

Rejection = Literal["host", "connections", "tls", "calling_title", "called_title", "associations", "other"]
"""Why a sender was turned away: its address is not listed, too many have not said yet who they are, TLS was not agreed,
it is no listed sender, it asked for somebody else, too many associations at once, anything else of PS3.8 9.3.4."""
Refusal = Literal["uid", "disk_low", "disk_full", "failed"]
"""Why an object was not taken: its UID is none, less than `min_free_bytes` would stay free, no room, an error."""

_DIAGNOSTICS: dict[tuple[int, int], Rejection] = {
    (1, 3): "calling_title",
    (1, 7): "called_title",
    (3, 2): "associations",
}
"""Source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ReceiverMeasures:
    """The counters of one receiver, from its start on, in a registry of their own."""

    def __init__(
        self, landing: Path, sites: Iterable[str], *, min_free_bytes: int, associations: Callable[[], int]
    ) -> None:
        """sites: of the settings. associations: how many are open now."""
        self.registry = here = CollectorRegistry()
        self._accepted = Counter("radia_receiver_associations_accepted", "Associations accepted", registry=here)
        self._rejected = Counter(
            "radia_receiver_associations_rejected", "Senders turned away, by reason", ["reason"], registry=here
        )
        self._stored = Counter(
            "radia_receiver_objects_stored", "Objects acknowledged, safe on the disk", ["site"], registry=here
        )
        self._bytes = Counter("radia_receiver_stored_bytes", "Their bytes", ["site"], registry=here)
        self._refused = Counter(
            "radia_receiver_objects_refused", "Objects that a sender keeps, by reason", ["reason"], registry=here
        )
        self._seconds = Histogram(
            "radia_receiver_object_seconds",
            "Seconds from an object that came whole to its place on the disk",
            buckets=_SECONDS,
            registry=here,
        )
        self._batches = Counter("radia_receiver_batches", "Batches closed", ["site"], registry=here)
        self._put_off = Counter(
            "radia_receiver_batches_put_off", "Batches that wait for the next intake: no room", registry=here
        )
        for site in set(sites):
            for by_site in (self._stored, self._bytes, self._batches):
                by_site.labels(site)
        for rejection in get_args(Rejection):
            self._rejected.labels(rejection)
        for refusal in get_args(Refusal):
            self._refused.labels(refusal)
        here.register(_Now(landing, min_free_bytes, associations))
        ProcessCollector(registry=here)

    def accepted(self) -> None:
        """An association began."""
        self._accepted.inc()

    def rejected(self, reason: Rejection) -> None:
        """A sender was turned away."""
        self._rejected.labels(reason).inc()

    def stored(self, site: str, size: int, seconds: float) -> None:
        """An object is on the disk. site: of the settings."""
        self._stored.labels(site).inc()
        self._bytes.labels(site).inc(size)
        self._seconds.observe(seconds)

    def refused(self, reason: Refusal) -> None:
        """An object was not taken."""
        self._refused.labels(reason).inc()

    def closed(self, site: str) -> None:
        """A batch is whole. site: of the settings, or of a spool that an earlier receiver left."""
        self._batches.labels(site).inc()

    def put_off(self) -> None:
        """A batch could not be closed: its objects wait on the disk."""
        self._put_off.inc()


def rejection(source: int | None, diagnostic: int | None) -> Rejection:
    """The reason of an A-ASSOCIATE-RJ."""
    return _DIAGNOSTICS.get((source or 0, diagnostic or 0), "other")


class _Now(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, landing: Path, min_free_bytes: int, associations: Callable[[], int]) -> None:
        self._landing, self._least, self._associations = landing, min_free_bytes, associations

    def describe(self) -> list[Metric]:
        """Nothing: a registry that is made looks at no disk."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges. The disk's are left out while there is no landing zone."""
        yield _gauge("radia_receiver_associations_open", "Associations open now", self._associations())
        waiting, oldest = spooled(self._landing)
        yield _gauge("radia_receiver_waiting_objects", "Objects received and not yet in a batch", waiting)
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        yield _gauge("radia_receiver_waiting_oldest_seconds", "Age of the oldest of them; 0: none waits", age)
        if self._landing.is_dir():
            usage = shutil.disk_usage(self._landing)
            yield _gauge("radia_receiver_disk_free_bytes", "Bytes free on the landing zone's disk", usage.free)
            yield _gauge("radia_receiver_disk_bytes", "Bytes of that disk", usage.total)
        yield _gauge("radia_receiver_disk_least_bytes", "Free bytes below which objects are refused", self._least)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)
