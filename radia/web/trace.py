"""Lineage for auditors: a question, its trace as a graph that leads on, the same as JSON or PROV. Read-only."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from radia.errors import LedgerError, RadiaError, UnknownId
from radia.steps.lineage import trace as traced
from radia.steps.run import Run
from radia.trace import Tree
from radia.web.access import context, open_to, person, say
from radia.web.accounts import AUDITOR, LEAD

blueprint = Blueprint("trace", __name__)

KINDS = ("model", "image", "patient", "batch", "read", "person", "check")
"""What can be asked for; a read and a check are events of the record."""
_EVENTS = {"read": ("read",), "check": ("check", "quality")}
LATEST = 20


@blueprint.get("/trace")
@open_to(AUDITOR, LEAD)
def search() -> AnyResponse | str:
    """The question; where it is asked, on to its answer."""
    kind, wanted = request.args.get("kind", ""), request.args.get("id", "").strip()
    if kind in KINDS and wanted:
        return redirect(url_for("trace.answer", kind=kind, identifier=wanted))
    if kind in _EVENTS:
        return _search(kind, latest=_latest(kind))
    return _search(kind or KINDS[0], latest={})


@blueprint.get("/trace/<kind>/<path:identifier>")
@open_to(AUDITOR, LEAD)
def answer(kind: str, identifier: str) -> Response | str | tuple[str, int]:
    """The trace of one thing: a page, or a download (`as=json`, `as=prov`)."""
    if kind not in (*KINDS, "event"):
        abort(404, say("trace.no_kind"))
    try:
        tree = traced(_run(), "event" if kind in _EVENTS else kind, identifier[:256])
    except (UnknownId, LedgerError) as error:
        return _search(kind, error=str(error), near=_nearest(str(error)), asked=identifier, latest=_latest(kind)), 404
    wanted = request.args.get("as")
    if wanted == "json":
        return _json_of(tree, kind)
    if wanted == "prov":
        return _prov_of(tree, kind)
    return _page(tree, kind, identifier)


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What the record cannot say."""
    return _search(KINDS[0], error=str(error), latest={}), 422


def _search(kind: str, **values: Any) -> str:
    return render_template("trace/search.html", kinds=KINDS, kind=kind, **values)


def _page(tree: Tree, kind: str, identifier: str) -> str:
    from radia.trace_page import Links, to_fragment

    there = Links.in_force(context().settings)
    links = Links(there.dagster, there.mlflow, traces=url_for("trace.search"))
    return render_template(
        "trace/answer.html",
        kinds=KINDS,
        kind=kind if kind in KINDS else "check",
        here_kind=kind,
        identifier=identifier,
        title=tree.label,
        content=Markup(to_fragment(tree, links)),  # noqa: S704 - escaped where it is made
    )


def _json_of(tree: Tree, kind: str) -> Response:
    from radia.trace import to_json

    text = json.dumps(to_json(tree), default=str, ensure_ascii=False, indent=1)
    return _download(text, f"trace-{kind}.json")


def _prov_of(tree: Tree, kind: str) -> Response:
    """The events of the trace as W3C PROV-JSON."""
    from radia.exchange import to_prov
    from radia.trace_page.said import events_of

    return _download(json.dumps(to_prov(events_of(tree)), indent=1), f"trace-{kind}.prov.json")


def _download(text: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, mimetype="application/json", headers=headers)


def _latest(kind: str) -> dict[str, str]:
    """The newest reads or checks: number of the event, and what to call it."""
    if kind not in _EVENTS:
        return {}
    events = [event for action in _EVENTS[kind] for event in _run().ledger.events(action=action, newest_first=True)]
    newest = sorted(events, key=lambda event: -event.sequence)[:LATEST]
    return {
        str(event.sequence): f"{event.at[:16].replace('T', ' ')} · {', '.join(event.people) or event.actor}"
        for event in newest
    }


def _nearest(message: str) -> list[str]:
    """The ids that an error names as the nearest."""
    found = re.search(r"the nearest: (.+)$", message)
    return found[1].split(", ") if found else []


def _run() -> Run:
    shared = context()
    return Run(shared.site, shared.settings, person().name)
