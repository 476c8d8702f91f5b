"""The web app: the demo, blind re-reading and lineage, each to the people whose work it is.

Server-rendered Flask; no file from another host. The parts are blueprints: demo, api and people.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from flask import Flask, g, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.wrappers import Response

from radia.errors import RadiaError
from radia.settings import Settings, load_settings
from radia.web import api, demo, people, readers, review, trace
from radia.web.access import ANYBODY, Context, context, guard, next_page, open_to, roles_of, say
from radia.web.accounts import Accounts, secret_key
from radia.web.language import COOKIE, LANGUAGES, NAMES
from radia.web.measures import measure
from radia.web.serving import ModelInUse
from radia.workspace import Workspace

log = logging.getLogger(__name__)

PLACES = (
    ("review.start", "nav.review"),
    ("demo.start", "nav.demo"),
    ("trace.search", "nav.trace"),
    ("readers.agreement", "nav.agreement"),
)
"""What navigation offers, to those it is open to."""


def create_app(site: Workspace, *, settings: Settings | None = None, open_demo: bool = False) -> Flask:
    """The application over a site. open_demo: the demo page alone, without accounts, for one's own machine."""
    app = Flask(__name__)
    shared = Context(site, settings or load_settings(), ModelInUse(site), Accounts(site.web / "people.db"), open_demo)
    limits = shared.settings.web
    app.config.update(
        SECRET_KEY=secret_key(site.web / "cookies.key"),
        MAX_CONTENT_LENGTH=limits.upload_mb << 20,
        SESSION_COOKIE_NAME="radia",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=limits.https,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=limits.session_hours),
    )
    measure(app)
    guard(app, shared)
    app.register_blueprint(demo.blueprint)
    app.register_blueprint(api.blueprint)
    if not open_demo:
        app.register_blueprint(people.blueprint)
        app.register_blueprint(review.blueprint)
        app.register_blueprint(readers.blueprint)
        app.register_blueprint(trace.blueprint)
    app.add_url_rule("/", "start", start)
    app.add_url_rule("/language/<language>", "language", choose_language)
    app.context_processor(_spoken)
    app.register_error_handler(RadiaError, _refused)
    app.register_error_handler(RequestEntityTooLarge, _too_large)
    app.register_error_handler(HTTPException, _http)
    return app


@open_to(ANYBODY)
def start() -> Response:
    """The first place that this person may go to."""
    places = _places()
    return redirect(places[0][0] if places else url_for("people.sign_in" if g.person is None else "people.account"))


@open_to(ANYBODY)
def choose_language(language: str) -> Response:
    """Remembers the choice, and goes back to the page it was made on."""
    if language not in LANGUAGES:
        raise NotFound
    response = redirect(next_page())
    response.set_cookie(
        COOKIE, language, max_age=365 * 86_400, httponly=True, samesite="Lax", secure=context().settings.web.https
    )
    return response


def _places() -> list[tuple[str, str, bool]]:
    """Address, name, whether it is the part one is in."""
    if g.get("person") is None:
        return []
    part = (request.endpoint or "").split(".")[0]
    return [
        (url_for(endpoint), say(key), endpoint.split(".")[0] == part)
        for endpoint, key in PLACES
        if g.person.may(roles_of(endpoint))
    ]


def _spoken() -> dict[str, Any]:
    """What every template can use."""
    return {
        "t": say,
        "language": g.get("language", LANGUAGES[0]),
        "languages": NAMES,
        "person": g.get("person"),
        "places": _places,
        "here": request.full_path.rstrip("?") if request.method == "GET" else "/",
        "may": lambda endpoint: g.get("person") is not None and g.person.may(roles_of(endpoint)),
    }


def _refused(error: RadiaError) -> tuple[Any, int]:
    return _told(str(error), 422)


def _too_large(_error: RequestEntityTooLarge) -> tuple[Any, int]:
    return _told(say("access.too_large", megabytes=(request.max_content_length or 0) >> 20), 413)


def _http(error: HTTPException) -> tuple[Any, int] | Response:
    if error.code is not None and 300 <= error.code < 400:
        return error.get_response()
    return _told(error.description or error.name, error.code or 500)


def _told(message: str, status: int) -> tuple[Any, int]:
    program = request.blueprint == "api" or request.path.startswith("/api/")
    if program or request.accept_mimetypes.best == "application/json":
        return jsonify(error=message), status
    return render_template("message.html", message=message, status=status), status
