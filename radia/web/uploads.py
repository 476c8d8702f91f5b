"""What a request brings, from its bytes to readings: in memory, one film at a time, a refused one stopping no other.

What belongs here: the files of a request, the queue before the model and the record of use, which pages and API share.
What does not: what an answer looks like (demo.py, api.py).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, cast

from flask import Flask, Request, abort, current_app, request

from radia.dicom.deidentify import Engine
from radia.dicom.pseudonyms import load_key
from radia.errors import RadiaError, Refusal
from radia.ledger import Action, Ledger, open_ledger
from radia.web.access import VISITOR, context, person
from radia.web.accounts import ENGINEER, LEAD, READER
from radia.web.imaging import read_film
from radia.web.measures import measures
from radia.web.reading import Prepared, Queue, Reading, prepare, queue, read
from radia.web.serving import Served

USERS = (READER, LEAD, ENGINEER, VISITOR)
"""Who may ask the model."""
MOST_FILES = 64
"""In one request; a page sends one at a time."""
SEARCHES = 2
"""Films of a process that are searched for text at the same time: each search fills a core."""
_DESK = "radia.uploads"


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


@dataclass
class Desk:
    """What the requests of one application share: the queue before the model, the ledger."""

    queue: Queue = field(default_factory=queue)
    searching: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(SEARCHES))
    _ledger: Ledger | None = None
    _engine: Engine | None = None

    def ledger(self) -> Ledger:
        """The site's ledger, opened once."""
        if self._ledger is None:
            self._ledger = open_ledger(context().site)
        return self._ledger

    def engine(self) -> Engine:
        """The site's de-identification: its key, its profile. Raises KeyFileError."""
        if self._engine is None:
            site = context().site
            key = load_key(site.key_file, create=not any(site.clean.glob("*/outcomes.parquet")))
            self._engine = Engine(key, context().settings.deidentify)
        return self._engine


def receive(app: Flask) -> None:
    """Readies an application for uploads: one desk, and files that never touch the disk."""
    app.extensions[_DESK] = Desk()
    app.request_class = InMemory


def desk() -> Desk:
    """That of this application."""
    return cast(Desk, current_app.extensions[_DESK])


def uploaded() -> bytes:
    """The one file of the request; 400 where there is none, or more than one."""
    found = uploads()
    if len(found) > 1:
        abort(400, "one file at a time")
    return found[0]


def uploads() -> list[bytes]:
    """The files of the request, in its order; 400 where there is none or too many."""
    found = request.files.getlist("image")
    if not found:
        abort(400, "no file was sent: a DICOM, PNG or JPEG file is expected as `image`")
    if len(found) > MOST_FILES:
        abort(400, f"more than {MOST_FILES} files at once")
    return [upload.stream.read() for upload in found]


def read_films(contents: Sequence[bytes]) -> tuple[Served, list[Reading | Refusal]]:
    """What the model in use says of each file, or why it is refused.

    A use leaves one event: who asked which model, the digests of the pixels, how many files were refused; no more.

    Raises NoModel, and Busy where so many do not fit into the queue.
    """
    served, here = context().model.now(), desk()
    here.queue.room(len(contents))
    with here.queue.coming():
        prepared = [_prepared(served, content) for content in contents]
    answers = iter(read(served, [film for film in prepared if isinstance(film, Prepared)], here.queue))
    results = [next(answers) if isinstance(film, Prepared) else film for film in prepared]
    _record(served, results)
    return served, results


def _prepared(served: Served, content: bytes) -> Prepared | Refusal:
    try:
        return prepare(served, read_film(content), side=context().settings.images.side)
    except Refusal as refusal:
        return refusal


def _record(served: Served, results: Sequence[Reading | Refusal]) -> None:
    readings = [result for result in results if isinstance(result, Reading)]
    counted = measures()
    counted.images.inc(len(readings))
    for result in results:
        if isinstance(result, Refusal):
            counted.refusals.labels(reason_of(result)).inc()
    counted.waiting.set(desk().queue.waiting())
    if served.version.isdigit():
        counted.model.set(int(served.version))
    counted.alone.set(served.unreachable_since is not None)
    if readings:
        desk().ledger().append(
            Action.PREDICT,
            actor=person().name,
            inputs={f"pixels {number}": reading.pixels_sha256 for number, reading in enumerate(readings, 1)},
            parameters={"model": served.name, "images": len(readings), "refused": len(results) - len(readings)},
        )


def reason_of(error: RadiaError) -> str:
    """A code for programs: the reason of a refusal, else the kind of error."""
    return error.reason.name if isinstance(error, Refusal) else type(error).__name__
