"""What the web app counts for Prometheus: requests, how long they took, the queue, the model, refusals. No more.

Labels are the names of views, methods, status codes and reasons: nothing a request brings is ever a label.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

from flask import Flask, Response, current_app, g, request

_EXTENSION = "radia.measures"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """The counters of one application. Where $PROMETHEUS_MULTIPROC_DIR is set, those of all its processes together."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self.requests = Counter(
            "radia_requests", "Requests answered", ["view", "method", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "radia_request_seconds", "Seconds to an answer", ["view"], buckets=_SECONDS, registry=self._registry
        )
        self.images = Counter("radia_images", "Images that a model read", registry=self._registry)
        self.refusals = Counter("radia_refusals", "Files refused, by reason", ["reason"], registry=self._registry)
        self.waiting = Gauge(
            "radia_queue", "Images that wait for the model", multiprocess_mode="livesum", registry=self._registry
        )
        self.model = Gauge(
            "radia_model_version", "Version in use", multiprocess_mode="livemostrecent", registry=self._registry
        )
        self.alone = Gauge(
            "radia_registry_unreachable",
            "1 while the registry cannot be reached and the last model goes on",
            multiprocess_mode="livemax",
            registry=self._registry,
        )

    def exposition(self) -> tuple[bytes, str]:
        """The page that Prometheus asks for, and its content type."""
        from prometheus_client import CollectorRegistry, exposition
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST


def measure(app: Flask) -> None:
    """Counts every request of an application from now on."""
    app.extensions[_EXTENSION] = Measures()
    app.before_request(_begin)
    app.after_request(_count)


def measures() -> Measures:
    """Those of this application."""
    return cast(Measures, current_app.extensions[_EXTENSION])


def _begin() -> Any:
    g.began = time.perf_counter()


def _count(response: Response) -> Response:
    view = request.endpoint or "none"
    here = measures()
    here.requests.labels(view, request.method if request.endpoint else "none", str(response.status_code)).inc()
    here.seconds.labels(view).observe(time.perf_counter() - g.get("began", time.perf_counter()))
    return response
