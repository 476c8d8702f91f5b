"""The pages of blind reading: a film and its question, the lock, and what is shown then.

Before the lock no answer of this blueprint holds anything of a model, a report, a queue or another reader; films go by
a token of this person's own, so that no address names a study.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from flask import Blueprint, Response, abort, flash, jsonify, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from radia.errors import LabelError, NoModel, RadiaError, Refusal
from radia.findings import FINDINGS
from radia.read_log import ADJUDICATOR
from radia.web import blind, films
from radia.web.access import context, open_to, person, say
from radia.web.accounts import LEAD, READER
from radia.web.batching import Busy
from radia.web.desk import Desk, Item
from radia.web.imaging import read_film
from radia.web.reveal import told
from radia.web.uploads import read_films

blueprint = Blueprint("review", __name__)

WHO = (READER, LEAD)


def desk() -> Desk:
    """The site's films before people."""
    return Desk(context().site.web / "review.db")


def board() -> blind.Board:
    """Queue and log as they stand now. Raises LabelError where no read was asked for."""
    return blind.board(context().site, context().settings)


# --- the way of one film --------------------------------------------------------------------------------------------


@blueprint.get("/review")
@open_to(*WHO)
def start() -> str:
    """What waits for this person."""
    name = person().name
    try:
        now = board()
    except LabelError:
        return render_template("review/start.html", progress=None, pace=desk().pace(name))
    return render_template(
        "review/start.html", progress=blind.progress(now, desk(), name), pace=desk().pace(name), needed=now.needed
    )


@blueprint.post("/review/next")
@open_to(*WHO)
def following() -> AnyResponse:
    """Goes on with the film that was begun, or takes the next one."""
    kind: blind.Kind = "decide" if request.form.get("kind") == "decide" else "read"
    item = blind.give(board(), desk(), person().name, kind)
    if item is None:
        flash(say(f"review.nothing.{kind}"))
        return redirect(url_for("review.start"), 303)
    return redirect(url_for("review.film", token=item.token), 303)


@blueprint.get("/review/film/<token>")
@open_to(*WHO)
def film(token: str) -> str | tuple[str, int]:
    """The film and its question; after the lock, what was locked and what others say of it."""
    item, now = _item(token), board()
    if item.state == "locked":
        return _locked_page(now, item)
    if item.state == "gone" or not blind.asked(now, item):
        return _taken(item)
    desk().show(token)
    return _question(now, item)


@blueprint.get("/review/film/<token>/pixels/<int:number>")
@open_to(*WHO)
def pixels(token: str, number: int) -> Response:
    """The film at its full depth."""
    return _pixels(films.films_of(context().site, _item(token).study), number)


@blueprint.get("/review/film/<token>/prior/<int:number>")
@open_to(*WHO)
def prior(token: str, number: int) -> Response:
    """A film of the same patient's study before."""
    before = films.prior_of(context().site, _item(token).study)
    return _pixels(before.films if before else (), number)


@blueprint.post("/review/film/<token>/draft")
@open_to(*WHO)
def draft(token: str) -> tuple[Response, int]:
    """Keeps what was answered so far."""
    said = request.get_json()
    answers = said.get("answers") if isinstance(said, dict) else None
    if not isinstance(answers, dict):
        abort(400, "answers are expected")
    kept = desk().keep(_item(token).token, blind.checked_answers(answers), _seconds(said.get("seconds")))
    return jsonify(kept=kept), (200 if kept else 409)


@blueprint.post("/review/film/<token>/lock")
@open_to(*WHO)
def lock(token: str) -> AnyResponse | tuple[str, int]:
    """Locks the answer for good; the page then shows what others say."""
    _item(token)
    here = redirect(url_for("review.film", token=token), 303)
    if not desk().keep(token, _answers(request.form), _seconds(request.form.get("seconds"))):
        flash(say("review.locked_before"))
        return here
    now, item = board(), _item(token)
    if blind.unanswered(now, item):
        return _question(now, item, error=say("review.unanswered")), 422
    try:
        blind.lock(now, desk(), item)
    except LabelError:
        if _item(token).state == "locked":  # in another window, at the same moment
            return here
        return _taken(item)
    return here


@blueprint.post("/review/film/<token>/change")
@open_to(*WHO)
def change(token: str) -> AnyResponse:
    """What a person says otherwise after the lock, kept beside what they said."""
    changed = blind.revise(board(), _item(token), _answers(request.form))
    flash(say("review.changed", n=changed))
    return redirect(url_for("review.film", token=token), 303)


@blueprint.get("/review/film/<token>/model")
@open_to(*WHO)
def model(token: str) -> str:
    """What the model in use says of a film that this person has locked, as a piece of the page."""
    item, now = _item(token), board()
    if item.state != "locked" or not blind.reveals(now, item):
        abort(409, say("review.not_locked"))
    content = films.film_of(films.films_of(context().site, item.study), 0)
    try:
        _, (result,) = read_films([content])
    except (NoModel, Busy) as error:
        return _sheet(now, item, why=str(error))
    return _sheet(now, item, why=str(result)) if isinstance(result, Refusal) else _sheet(now, item, reading=result)


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What cannot be read, taken or shown."""
    return render_template("message.html", message=str(error), status=422), 422


# --- parts ----------------------------------------------------------------------------------------------------------


def _item(token: str) -> Item:
    """This person's film of this token; 404 for anybody else's."""
    item = desk().item(token, person().name)
    if item is None:
        abort(404, say("review.no_film"))
    return item


def _question(now: blind.Board, item: Item, **values: Any) -> str:
    """The page before the lock: nothing on it is known to anybody but this reader."""
    wanted = blind.asked(now, item)
    before = films.prior_of(now.site, item.study)
    return render_template(
        "review/film.html",
        token=item.token,
        answers=item.answers,
        asked=wanted,
        others=() if item.role == ADJUDICATOR else [finding for finding in FINDINGS if finding not in wanted],
        deciding=item.role == ADJUDICATOR,
        films=len(films.films_of(now.site, item.study)),
        prior=before and {"films": len(before.films), "days": before.days},
        waiting=blind.waiting(now, desk(), item.person, _kind(item)),
        pace=desk().pace(item.person),
        **values,
    )


def _locked_page(now: blind.Board, item: Item) -> str:
    shown = blind.reveals(now, item)
    before = films.prior_of(now.site, item.study)
    return render_template(
        "review/locked.html",
        token=item.token,
        study=item.study if shown else None,
        said=blind.last_word(now, item),
        shown=shown,
        kind=_kind(item),
        seconds=item.seconds,
        films=len(films.films_of(now.site, item.study)),
        prior=before and {"films": len(before.films), "days": before.days},
        **(_told(now, item) if shown else {}),
    )


def _sheet(now: blind.Board, item: Item, **values: Any) -> str:
    return render_template("review/sheet.html", **_told(now, item), **values)


def _told(now: blind.Board, item: Item) -> dict[str, Any]:
    """What others say, the finding in question first, then what this person answered."""
    question = blind.question_of(now.site, item.study)
    rows = told(now.site, item.study, blind.last_word(now, item))
    return {"question": question, "rows": sorted(rows, key=lambda row: (row.finding != question, not row.answer))}


def _taken(item: Item) -> tuple[str, int]:
    """Somebody else has decided meanwhile."""
    desk().close(item.token, "gone")
    return render_template("review/refused.html", error=say("review.decided_by_another")), 409


def _kind(item: Item) -> blind.Kind:
    return "decide" if item.role == ADJUDICATOR else "read"


def _pixels(found: tuple[Path, ...], number: int) -> Response:
    shades, headers = read_film(films.film_of(found, number)).display().as_bytes()
    return Response(shades, mimetype="application/octet-stream", headers=headers)


def _answers(form: MultiDict[str, str]) -> dict[str, str]:
    """The answers of a form: `answer <finding>`."""
    given = {name.removeprefix("answer "): value for name, value in form.items() if name.startswith("answer ")}
    return blind.checked_answers({finding: value for finding, value in given.items() if value})


def _seconds(value: object) -> float:
    """What a page counted; what is no number counts nothing."""
    try:
        seconds = float(cast(Any, value))
    except (TypeError, ValueError):
        return 0.0
    return seconds if 0 <= seconds < 86_400 else 0.0
