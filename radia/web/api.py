"""What programs ask for: predictions as JSON, and whether the app is well."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from radia.errors import NoModel, RadiaError
from radia.web.access import ANYBODY, context, open_to
from radia.web.batching import Busy
from radia.web.demo import USERS, read_upload, uploaded

blueprint = Blueprint("api", __name__)


@blueprint.post("/api/predict")
@open_to(*USERS, uploads=True)
def predict() -> Response:
    """The reading of one upload."""
    return jsonify(read_upload(uploaded()).as_json())


@blueprint.get("/healthz")
@open_to(ANYBODY)
def health() -> Response:
    """Which model answers; null where none is in use yet."""
    try:
        return jsonify(status="ok", model=context().model.now().name)
    except NoModel:
        return jsonify(status="ok", model=None)


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[Response, int]:
    """What cannot be read, or no model."""
    return jsonify(error=str(error)), 422


@blueprint.errorhandler(Busy)
def busy(error: Busy) -> tuple[Response, int, dict[str, str]]:
    """Too many images wait: when to come again."""
    return jsonify(error=str(error)), 503, {"Retry-After": str(error.seconds)}
