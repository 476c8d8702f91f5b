"""The demo page: an X-ray in, 14 probabilities and their heat maps out, by the model in use.

Nothing is stored: an upload lives in memory until its page is written.
"""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any, cast

from flask import Blueprint, Flask, Request, abort, current_app, render_template, request
from flask.blueprints import BlueprintSetupState
from werkzeug.datastructures import FileStorage

from radia.errors import RadiaError
from radia.ledger import open_ledger
from radia.web.access import VISITOR, context, open_to, person
from radia.web.accounts import ENGINEER, LEAD, READER
from radia.web.batching import Busy
from radia.web.imaging import Film, read_film
from radia.web.reading import Queue, Reading, example_film, queue, read
from radia.web.serving import Served

blueprint = Blueprint("demo", __name__)

EXAMPLES = 6
_QUEUE = "radia.queue"
USERS = (READER, LEAD, ENGINEER, VISITOR)


class InMemory(Request):
    """A request whose uploads stay in memory, whatever their size (the application bounds it)."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


@blueprint.record_once
def _queue_of(state: BlueprintSetupState) -> None:
    """One queue an application, and uploads that never touch the disk."""
    state.app.extensions[_QUEUE] = queue()
    cast(Flask, state.app).request_class = InMemory


@blueprint.get("/demo")
@open_to(*USERS)
def start() -> str:
    """The page before anything was read."""
    return _page()


@blueprint.post("/demo")
@open_to(*USERS, uploads=True)
def result() -> str:
    """The page with what the model says of the upload."""
    return _page(reading=read_upload(uploaded()))


@blueprint.get("/demo/example/<int:number>")
@open_to(*USERS)
def example(number: int) -> str:
    """An image of the embedded hospital."""
    if not 1 <= number <= EXAMPLES:
        abort(404, "there is no such example")
    return _page(reading=_read(context().model.now(), example_film(EXAMPLES, number - 1)))


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What cannot be read, or no model."""
    return render_template("demo/page.html", examples=EXAMPLES, served=None, error=str(error)), 422


@blueprint.errorhandler(Busy)
def busy(error: Busy) -> tuple[str, int, dict[str, str]]:
    """Too many images wait."""
    page = render_template("demo/page.html", examples=EXAMPLES, served=None, error=str(error))
    return page, 503, {"Retry-After": str(error.seconds)}


def waiting() -> Queue:
    """The queue before the model."""
    found: Queue = current_app.extensions[_QUEUE]
    return found


def uploaded() -> FileStorage:
    """The file of the request; 400 where there is none."""
    upload = request.files.get("image")
    if upload is None or not upload.filename:
        abort(400, "no file was sent: choose a DICOM, PNG or JPEG file")
    return upload


def read_upload(upload: FileStorage) -> Reading:
    """The reading of an uploaded file. A use leaves an event: the digest of the pixels, no more."""
    served, ahead = context().model.now(), waiting()
    ahead.room()
    with ahead.coming():
        film = read_film(upload.stream.read())
    reading = _read(served, film)
    open_ledger(context().site).append(
        "predict", actor=person().name, inputs={"pixels": reading.pixels_sha256}, parameters={"model": reading.model}
    )
    return reading


def _read(served: Served, film: Film) -> Reading:
    return read(served, film, waiting(), side=context().settings.images.side)


def _page(**values: Any) -> str:
    return render_template("demo/page.html", examples=EXAMPLES, served=context().model.now(), **values)
