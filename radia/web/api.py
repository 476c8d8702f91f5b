"""What programs ask for: predictions as JSON, reports as DICOM, and whether the app is well (openapi.yaml)."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from flask import Blueprint, Response, abort, jsonify, request

from radia.errors import NoModel, RadiaError, Refusal, StoreError
from radia.ledger import Action
from radia.web import report as reports
from radia.web.access import ANYBODY, LOOPBACK, VISITOR, context, open_to, person
from radia.web.accounts import ENGINEER, LEAD
from radia.web.batching import Busy
from radia.web.measures import measures
from radia.web.pacs import store
from radia.web.reading import Reading
from radia.web.uploads import USERS, desk, read_films, reason_of, uploaded, uploads

blueprint = Blueprint("api", __name__)

NOTICE = "assistance, not diagnosis"
KINDS = ("structured-report", "secondary-capture")
SENDERS = (LEAD,)
"""Who may put something into the hospital's PACS."""


@blueprint.post("/api/predict")
@open_to(*USERS, uploads=True)
def predict() -> tuple[Response, int]:
    """The readings of one or many uploads, in their order. 422 where none of them could be read."""
    served, results = read_films(uploads())
    refused = [result for result in results if isinstance(result, Refusal)]
    answer: dict[str, Any] = {
        "model": served.name,
        "results": [_refusal(one) if isinstance(one, Refusal) else one.as_json() for one in results],
        "notice": NOTICE,
    }
    if len(refused) < len(results):
        return jsonify(answer), 200
    return jsonify(error=str(refused[0]), reason=reason_of(refused[0]), **answer), 422


@blueprint.post("/api/report/<kind>")
@open_to(*USERS, uploads=True)
def report(kind: str) -> Response:
    """One upload's reading as a DICOM object, under pseudonyms."""
    if kind not in KINDS:
        abort(404, f"there is no such kind: expected {' or '.join(KINDS)}")
    reading, source = _read(uploaded(), "pseudonymous")
    made = _made(kind, reading, source)
    return Response(reports.as_bytes(made), mimetype="application/dicom")


@blueprint.post("/api/send")
@open_to(*SENDERS, uploads=True)
def send() -> Response:
    """One upload's reading to the PACS, as both objects; who sent it is recorded."""
    pacs = context().settings.web.pacs
    if pacs is None:
        abort(409, "no PACS is set up: name one in params.yaml (web.pacs)")
    identifiers = request.form.get("identifiers", "pseudonymous")
    if identifiers not in ("pseudonymous", "original"):
        abort(400, "identifiers are pseudonymous or original")
    reading, source = _read(uploaded(), "original" if identifiers == "original" else "pseudonymous")
    made = [_made(kind, reading, source) for kind in KINDS]
    store(made, pacs)
    desk().ledger().append(
        Action.EXPORTED,
        actor=person().name,
        inputs={"pixels": reading.pixels_sha256},
        parameters={"model": reading.model, "to": pacs.ae_title, "objects": list(KINDS), "identifiers": identifiers},
    )
    sent = [{"kind": kind, "instance": str(one.SOPInstanceUID)} for kind, one in zip(KINDS, made, strict=True)]
    return jsonify(sent=sent)


@blueprint.get("/api/openapi.json")
@open_to(*USERS)
def openapi() -> Response:
    """What this app answers to programs, by OpenAPI 3.1."""
    return jsonify(description())


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    loaded: dict[str, Any] = yaml.safe_load((files("radia.web") / "openapi.yaml").read_text(encoding="utf-8"))
    return loaded


@blueprint.get("/healthz")
@open_to(ANYBODY)
def health() -> Response:
    """Which model answers; null where none is in use yet."""
    try:
        served = context().model.now()
    except NoModel:
        return jsonify(status="ok", model=None)
    return jsonify(status="ok", model=served.name)


@blueprint.get("/metrics")
@open_to(LOOPBACK, ENGINEER, VISITOR)
def metrics() -> Response:
    """Counts and latencies for Prometheus; nothing of a patient or a person."""
    content, kind = measures().exposition()
    return Response(content, content_type=kind)


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[Response, int]:
    """What cannot be read, no model, or a PACS that did not take it."""
    return jsonify(error=str(error), reason=reason_of(error)), 502 if isinstance(error, StoreError) else 422


@blueprint.errorhandler(Busy)
def busy(error: Busy) -> tuple[Response, int, dict[str, str]]:
    """Too many images wait: when to come again."""
    return jsonify(error=str(error)), 503, {"Retry-After": str(error.seconds)}


def _refusal(refusal: Refusal) -> dict[str, str]:
    return {"error": str(refusal), "reason": reason_of(refusal)}


def _read(content: bytes, identifiers: reports.Identifiers) -> tuple[Reading, reports.Source]:
    source = reports.source_of(content, desk().engine(), identifiers)
    _, (reading,) = read_films([content])
    if isinstance(reading, Refusal):
        raise reading
    return reading, source


def _made(kind: str, reading: Reading, source: reports.Source) -> Any:
    now = datetime.now().astimezone()
    if kind == "structured-report":
        return reports.structured_report(reading, source, now=now)
    return reports.secondary_capture(reading, source, request.form.get("finding") or None, now=now)
