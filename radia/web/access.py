"""Who a request is from and what they may reach: deny by default, and what every answer carries for its safety.

A view that does not say who it is open to (`open_to`) is open to nobody. A person is known by a session (local
account), by a token (programs), or by the header of a trusted proxy (the hospital's single sign-on); roles are those
of the account here in each case. Requests that change something carry the session's CSRF token and come from this page.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, g, redirect, request, session, url_for
from flask_wtf import CSRFProtect
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from radia.settings import Settings
from radia.web.accounts import Account, Accounts
from radia.web.language import COOKIE, LANGUAGES, chosen, text
from radia.web.serving import ModelInUse
from radia.workspace import Workspace

View = TypeVar("View", bound=Callable[..., Any])

ANYBODY = "anybody"
"""Signed in or not: sign-in, health, style sheets."""
LOOPBACK = "loopback"
"""A program of this machine, not through a proxy."""
VISITOR = "visitor"
"""Whoever sits before a machine that serves the demo alone, without accounts."""

FORM_BYTES = 1_000_000
"""The most that a request may bring where no upload is expected."""
_NAMES_SECONDS = 30
"""How long a proxy's name means the addresses that it meant: one that is started again has another."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

csrf = CSRFProtect()


@dataclass(frozen=True)
class Context:
    """What the views of one application share."""

    site: Workspace
    settings: Settings
    model: ModelInUse
    accounts: Accounts
    open_demo: bool = False


@dataclass(frozen=True)
class Person:
    """Who a request is from, and how that is known."""

    name: str
    roles: frozenset[str]
    by: Literal["session", "token", "proxy", "open demo"]

    def may(self, roles: frozenset[str]) -> bool:
        """Whether one of these roles is theirs."""
        return bool(self.roles & roles)


def open_to(*roles: str, uploads: bool = False) -> Callable[[View], View]:
    """Says who a view is open to. uploads: a request may bring files (settings `web.upload_mb`)."""

    def marked(view: View) -> View:
        view.radia_roles = frozenset(roles)  # type: ignore[attr-defined]
        view.radia_uploads = uploads  # type: ignore[attr-defined]
        return view

    return marked


def context() -> Context:
    """What the views of this application share."""
    found: Context = current_app.extensions["radia"]
    return found


def person() -> Person:
    """Who the request is from; there is somebody in every view that is not open to anybody."""
    found: Person | None = g.person
    if found is None:
        raise Unauthorized
    return found


def say(key: str, **values: object) -> str:
    """A text in the language of the request."""
    return text(g.language, key, **values)


def next_page() -> str:
    """Where to go on (`next`): a page of this site, never of another."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    own = wanted.startswith("/") and not wanted.startswith("//") and not parts.scheme and not parts.netloc
    return wanted if own and "\\" not in wanted and wanted.isprintable() else url_for("start")


def roles_of(endpoint: str) -> frozenset[str]:
    """Who a view is open to; nobody where it does not say."""
    view = current_app.view_functions.get(endpoint)
    return getattr(view, "radia_roles", frozenset())


def guard(app: Flask, shared: Context) -> None:
    """Puts every request of the application behind the rules of this module."""
    app.extensions["radia"] = shared
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    app.config["WTF_CSRF_TIME_LIMIT"] = None  # as long as the session
    app.config["WTF_CSRF_SSL_STRICT"] = False  # the origin is checked below, with and without TLS
    csrf.init_app(app)
    app.before_request(_admit)
    app.after_request(_harden)


def address() -> str:
    """The client's address: what a trusted proxy says, else the one at the other end."""
    if _from_proxy():
        forwarded = request.headers.get("X-Forwarded-For", "").split(",")[-1].strip()
        return forwarded or str(request.remote_addr)
    return str(request.remote_addr)


# --- a request comes in ---------------------------------------------------------------------------------------------


def _admit() -> AnyResponse | None:
    shared = context()
    g.language = chosen(
        request.cookies.get(COOKIE), request.accept_languages.best_match(LANGUAGES), shared.settings.web.language
    )
    g.person = _visitor() if shared.open_demo else _known(shared)
    if request.endpoint is None:
        return None
    view = current_app.view_functions[request.endpoint]
    roles: frozenset[str] = frozenset({ANYBODY}) if _is_static() else roles_of(request.endpoint)
    uploads = getattr(view, "radia_uploads", False)
    request.max_content_length = shared.settings.web.upload_mb << 20 if uploads else FORM_BYTES
    if not _is_allowed(roles):
        return _turned_away()
    if request.method not in _SAFE and not (g.person is not None and g.person.by == "token"):
        _refuse_other_pages()
        if not shared.open_demo:
            csrf.protect()
    return None


def _is_allowed(roles: frozenset[str]) -> bool:
    if ANYBODY in roles or (LOOPBACK in roles and _from_this_machine()):
        return True
    return g.person is not None and g.person.may(roles)


def _is_static() -> bool:
    return request.endpoint == "static"


def _turned_away() -> AnyResponse | None:
    if g.person is not None:
        raise Forbidden(say("access.forbidden"))
    for_a_person = "text/html" in request.headers.get("Accept", "text/html") and not request.path.startswith("/api/")
    if request.method == "GET" and for_a_person and not context().open_demo:
        return redirect(url_for("people.sign_in", next=request.full_path.rstrip("?")))
    raise Unauthorized(say("access.sign_in_first"))


def _known(shared: Context) -> Person | None:
    """Who sent it: a program with a token, a person whom a trusted proxy names, or one with a session."""
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        account = shared.accounts.by_token(header.removeprefix("Bearer ").strip())
        return None if account is None else Person(account.name, account.roles, "token")
    named = request.headers.get(shared.settings.web.user_header)
    if named and _from_proxy():
        account = shared.accounts.find(named)
        return None if account is None else Person(account.name, account.roles, "proxy")
    account = _of_session(shared)
    return None if account is None else Person(account.name, account.roles, "session")


def _of_session(shared: Context) -> Account | None:
    secret = session.get("secret")
    if not isinstance(secret, str):
        return None
    limits = shared.settings.web
    return shared.accounts.session(
        secret, idle_seconds=60 * limits.idle_minutes, total_seconds=3600 * limits.session_hours
    )


def _visitor() -> Person:
    """The demo alone, on this machine: a page of another name cannot reach it by pointing its name here."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if host != "localhost" and not _is_loopback(host):
        abort(403, "the open demo answers to localhost alone")
    return Person("open demo", frozenset({VISITOR}), "open demo")


def _from_proxy() -> bool:
    trusted = context().settings.web.trusted_proxies
    try:
        sender = ipaddress.ip_address(str(request.remote_addr))
    except ValueError:
        return False
    now = int(time.monotonic() // _NAMES_SECONDS)
    return any(sender in network for name in trusted for network in _networks(name, now))


@lru_cache(maxsize=64)
def _networks(name: str, _moment: int) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """The addresses of a proxy: as they are written, or those its name has at this moment; none where it has none."""
    with suppress(ValueError):
        return (ipaddress.ip_network(name, strict=False),)
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(ipaddress.ip_network(str(address[0]).partition("%")[0]) for *_, address in found)


def _from_this_machine() -> bool:
    """Not through a proxy of this machine: what that passes on says where it came from."""
    passed_on = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", context().settings.web.user_header)
    return _is_loopback(str(request.remote_addr)) and not any(name in request.headers for name in passed_on)


def _is_loopback(text_: str) -> bool:
    try:
        return ipaddress.ip_address(text_).is_loopback
    except ValueError:
        return False


def _refuse_other_pages() -> None:
    """A form of another site does not act here: browsers say where a request comes from. Raises Forbidden."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forbidden(say("access.other_page"))
        return
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden(say("access.other_page"))


# --- an answer goes out ---------------------------------------------------------------------------------------------


def _harden(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    headers["Cache-Control"] = "no-cache" if _is_static() else "no-store"
    if context().settings.web.https:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return response
