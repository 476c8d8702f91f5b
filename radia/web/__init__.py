"""The web demo: an X-ray in, 14 probabilities and their heat maps out, by the model in use.

Server-rendered Flask, no file from another host, nothing stored: an upload lives in memory until its page is written.
"""

from __future__ import annotations

import logging
from typing import Any

import click
from flask import Flask, Response, abort, jsonify, render_template, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from radia.errors import RadiaError
from radia.ledger import open_ledger
from radia.web.reading import ModelInUse, Reading, example_pixels, gray_of_upload
from radia.workspace import Workspace

UPLOAD_BYTES = 128 * 1024 * 1024
EXAMPLES = 6

log = logging.getLogger(__name__)


def create_app(site: Workspace) -> Flask:
    """The application over a site's model in use."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = UPLOAD_BYTES
    model = ModelInUse(site)

    def read(upload: FileStorage) -> Reading:
        reading = model.read(gray_of_upload(upload.stream.read()))
        _log_use(site, reading)
        return reading

    @app.get("/")
    def start() -> str:
        return render_template("page.html", examples=EXAMPLES, model=model.name(), warning=model.warning())

    @app.post("/")
    def result() -> str:
        return render_template(
            "page.html", examples=EXAMPLES, model=model.name(), warning=model.warning(), reading=read(_uploaded())
        )

    @app.get("/example/<int:number>")
    def example(number: int) -> str:
        if not 1 <= number <= EXAMPLES:
            abort(404, "there is no such example")
        reading = model.read(example_pixels(EXAMPLES)[number - 1])
        return render_template(
            "page.html", examples=EXAMPLES, model=model.name(), warning=model.warning(), reading=reading
        )

    @app.post("/api/predict")
    def predict() -> Response:
        return jsonify(read(_uploaded()).as_json())

    @app.get("/healthz")
    def health() -> Response:
        return jsonify(status="ok", model=model.name())

    @app.errorhandler(RadiaError)
    def refused(error: RadiaError) -> tuple[Any, int]:
        return _told(str(error), 422)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_error: RequestEntityTooLarge) -> tuple[Any, int]:
        return _told(f"the file is larger than {UPLOAD_BYTES >> 20} MB", 413)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> tuple[Any, int]:
        return _told(error.description or error.name, error.code or 500)

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


def serve(site: Workspace, *, host: str, port: int) -> None:
    """Serves until the process ends. The model is loaded before the first request is taken."""
    from waitress import serve as listen

    app = create_app(site)
    click.echo(f"http://{host}:{port}")
    listen(app, host=host, port=port, threads=4, ident=None)


def _uploaded() -> FileStorage:
    upload = request.files.get("image")
    if upload is None or not upload.filename:
        abort(400, "no file was sent: choose a DICOM, PNG or JPEG file")
    return upload


def _told(message: str, status: int) -> tuple[Any, int]:
    if request.path.startswith("/api/"):
        return jsonify(error=message), status
    return render_template("page.html", examples=EXAMPLES, model=None, error=message), status


def _log_use(site: Workspace, reading: Reading) -> None:
    """A prediction is a use of a patient's image: it leaves an event, with the digest of the pixels and no more."""
    open_ledger(site).append(
        "predict", actor="web", inputs={"pixels": reading.pixels_sha256}, parameters={"model": reading.model}
    )
