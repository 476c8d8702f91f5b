"""Signing in and out, the choice of language, one's own password."""

from __future__ import annotations

from flask import Blueprint, abort, flash, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from radia.errors import AccountError
from radia.web.access import ANYBODY, address, context, next_page, open_to, person, say
from radia.web.accounts import AUDITOR, ENGINEER, LEAD, ROLES

AREAS = {"engineer": frozenset({ENGINEER}), "auditor": frozenset({AUDITOR, ENGINEER, LEAD})}
"""What the proxy keeps for some: Dagster, where work is started; Dagster that nothing can be changed in."""

blueprint = Blueprint("people", __name__)


@blueprint.get("/sign-in")
@open_to(ANYBODY)
def sign_in() -> str | Response:
    """The form; who is signed in already is sent on."""
    if g.person is not None:
        return redirect(next_page())
    return render_template("people/sign_in.html", next=next_page(), nobody=not context().accounts.all())


@blueprint.post("/sign-in")
@open_to(ANYBODY)
def enter() -> Response | tuple[str, int, dict[str, str]] | tuple[str, int]:
    """Opens a session where name and password are right."""
    shared = context()
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    if wait := _wait(name):
        page = render_template(
            "people/sign_in.html", next=next_page(), error=say("people.wait", n=-(-wait // 60)), name=name
        )
        return page, 429, {"Retry-After": str(wait)}
    account = shared.accounts.check(name, password[:1024])
    if account is None:
        shared.accounts.failed(name, address())
        return render_template("people/sign_in.html", next=next_page(), error=say("people.wrong"), name=name), 401
    session.clear()
    session["secret"] = shared.accounts.open_session(account.name)
    return redirect(next_page())


def _wait(name: str) -> int:
    """Seconds until a password of this name may be tried again from where the request comes from; 0: now."""
    limits = context().settings.web
    attempts, seconds = limits.sign_in_attempts, 60 * limits.sign_in_minutes
    return context().accounts.wait(name, address(), attempts=attempts, seconds=seconds)


@blueprint.post("/sign-out")
@open_to(ANYBODY)
def leave() -> Response:
    """Ends the session; reads that are not locked stay as they are."""
    secret = session.get("secret")
    if isinstance(secret, str):
        context().accounts.close_session(secret)
    session.clear()
    return redirect(url_for("people.sign_in"))


@blueprint.get("/allowed/<area>")
@open_to(ANYBODY)
def allowed(area: str) -> tuple[str, int]:
    """The proxy's question (nginx's `auth_request`) for whom it has at hand: 204 yes, 403 no, 401 sign in first."""
    if area not in AREAS:
        abort(404)
    if g.person is None:
        return "", 401
    return "", 204 if g.person.may(AREAS[area]) else 403


@blueprint.get("/account")
@open_to(*ROLES)
def account() -> str:
    """Who one is here, and another password."""
    return render_template("people/account.html")


@blueprint.post("/account/password")
@open_to(*ROLES)
def change_password() -> Response | tuple[str, int]:
    """Another password; every session ends but this one, which begins anew."""
    shared, name = context(), person().name
    if person().by != "session":
        abort(403, say("people.no_password_here"))
    if wait := _wait(name):  # whoever found a session open does not find the password by it
        return render_template("people/account.html", error=say("people.wait", n=-(-wait // 60))), 429
    if shared.accounts.check(name, request.form.get("old", "")[:1024]) is None:
        shared.accounts.failed(name, address())
        return render_template("people/account.html", error=say("people.wrong_old")), 422
    try:
        shared.accounts.set_password(name, request.form.get("new", "")[:1024])
    except AccountError:
        return render_template("people/account.html", error=say("people.weak")), 422
    session.clear()
    session["secret"] = shared.accounts.open_session(name)
    flash(say("people.changed"))
    return redirect(url_for("people.account"))
