"""The demo page: X-rays in, 14 probabilities and their heat maps out, by the model in use.

The page sends its files one at a time, so that each is answered, or refused, for itself, and keeps what came back; the
server keeps nothing. Films are shown without burned-in text.
"""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Flask, Response, abort, g, render_template
from flask.blueprints import BlueprintSetupState

from radia.errors import NoModel, RadiaError, Refusal
from radia.web import examples
from radia.web.access import context, open_to, say
from radia.web.batching import Busy
from radia.web.imaging import read_film
from radia.web.language import texts
from radia.web.uploads import USERS, desk, read_films, reason_of, receive, uploaded

blueprint = Blueprint("demo", __name__)


@blueprint.record_once
def _ready(state: BlueprintSetupState) -> None:
    receive(cast(Flask, state.app))


@blueprint.get("/demo")
@open_to(*USERS)
def start() -> str | tuple[str, int]:
    """The page before anything was read."""
    try:
        served = context().model.now()
    except NoModel:
        texts = {"title": say("demo.refusals.NoModel"), "message": say("demo.no_model")}
        return render_template("message.html", **texts, status=422), 422
    return render_template("demo/page.html", examples=examples.COUNT, served=served)


@blueprint.post("/demo/read")
@open_to(*USERS, uploads=True)
def read() -> str | tuple[str, int]:
    """What the model says of one file, as a piece of the page."""
    content = uploaded()
    _, (result,) = read_films([content])
    if isinstance(result, Refusal):
        return _refused(result)
    pictures = content.startswith((b"\x89PNG", b"\xff\xd8"))
    return render_template(
        "demo/reading.html", reading=result, dicom=not pictures, pacs=context().settings.web.pacs is not None
    )


@blueprint.post("/demo/film")
@open_to(*USERS, uploads=True)
def film() -> Response:
    """The film of one file at its full depth, without legible burned-in text."""
    film = read_film(uploaded())
    with desk().searching:
        shades, headers = film.display().without_text().as_bytes()
    return Response(shades, mimetype="application/octet-stream", headers=headers)


@blueprint.get("/demo/example/<int:number>")
@open_to(*USERS)
def example(number: int) -> Response:
    """A film of the embedded hospital, as a DICOM file to read."""
    if not 1 <= number <= examples.COUNT:
        abort(404, "there is no such example")
    return Response(examples.example(number).content, mimetype="application/dicom")


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What cannot be read, or no model."""
    return _refused(error)


@blueprint.errorhandler(Busy)
def busy(error: Busy) -> tuple[str, int, dict[str, str]]:
    """Too many images wait."""
    return str(error), 503, {"Retry-After": str(error.seconds)}


def _refused(error: RadiaError) -> tuple[str, int]:
    reason = reason_of(error)
    why = say(f"demo.refusals.{reason if reason in texts(g.language)['demo']['refusals'] else 'other'}")
    return render_template("demo/refused.html", error=error, reason=reason, why=why), 422
