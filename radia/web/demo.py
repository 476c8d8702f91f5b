"""The demo page: an X-ray in, 14 probabilities and their heat maps out, by the model in use.

Nothing is stored: an upload lives in memory until its page is written.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, render_template, request
from werkzeug.datastructures import FileStorage

from radia.errors import RadiaError
from radia.ledger import open_ledger
from radia.web.access import VISITOR, context, open_to, person
from radia.web.accounts import ENGINEER, LEAD, READER
from radia.web.reading import Reading, example_pixels, gray_of_upload, read

blueprint = Blueprint("demo", __name__)

EXAMPLES = 6
USERS = (READER, LEAD, ENGINEER, VISITOR)


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
    return _page(reading=read(context().model.now(), example_pixels(EXAMPLES)[number - 1]))


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What cannot be read, or no model."""
    return render_template("demo/page.html", examples=EXAMPLES, served=None, error=str(error)), 422


def uploaded() -> FileStorage:
    """The file of the request; 400 where there is none."""
    upload = request.files.get("image")
    if upload is None or not upload.filename:
        abort(400, "no file was sent: choose a DICOM, PNG or JPEG file")
    return upload


def read_upload(upload: FileStorage) -> Reading:
    """The reading of an uploaded file. A use leaves an event: the digest of the pixels, no more."""
    reading = read(context().model.now(), gray_of_upload(upload.stream.read()))
    open_ledger(context().site).append(
        "predict", actor=person().name, inputs={"pixels": reading.pixels_sha256}, parameters={"model": reading.model}
    )
    return reading


def _page(**values: Any) -> str:
    return render_template("demo/page.html", examples=EXAMPLES, served=context().model.now(), **values)
