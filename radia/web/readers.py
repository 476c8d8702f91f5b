"""How far readers agree, how far the queue is, and reads that are made in Label Studio: the lead's pages."""

from __future__ import annotations

import io
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, flash, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as AnyResponse

from radia.errors import LabelError, RadiaError
from radia.findings import FINDINGS
from radia.read_log import ADJUDICATOR, AGAIN, READER
from radia.steps.reads import export_label_studio, import_label_studio, queue_states, read_log
from radia.steps.run import Run
from radia.web.access import context, open_to, person, say
from radia.web.accounts import AUDITOR, LEAD
from radia.web.review import desk

blueprint = Blueprint("readers", __name__)

_ROLES = (READER, ADJUDICATOR, AGAIN)


@blueprint.get("/review/agreement")
@open_to(LEAD, AUDITOR)
def agreement() -> str:
    """How far everything is, and how far readers agree: with each other, and with themselves."""
    return _page()


@blueprint.post("/review/label-studio/export")
@open_to(LEAD)
def to_label_studio() -> Response:
    """What a reader can read now, as a folder for Label Studio."""
    reader, role = _reader_and_role()
    with tempfile.TemporaryDirectory() as holder:
        folder = Path(holder) / "radia-reads"
        export_label_studio(_run(), folder, reader=reader, role=role)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed:  # PNG is packed already
            for path in sorted(folder.rglob("*")):
                packed.write(path, path.relative_to(holder))
    content.seek(0)
    return send_file(content, "application/zip", as_attachment=True, download_name="radia-reads.zip")


@blueprint.post("/review/label-studio/import")
@open_to(LEAD, uploads=True)
def from_label_studio() -> AnyResponse:
    """One person's annotations, from Label Studio's JSON export."""
    reader, role = _reader_and_role()
    upload = request.files.get("export")
    if upload is None or not upload.filename:
        abort(400, say("readers.no_file"))
    with tempfile.TemporaryDirectory() as holder:
        file = Path(holder) / "export.json"
        file.write_bytes(upload.stream.read())
        annotator = request.form.get("annotator", "").strip()
        done = import_label_studio(_run(), file, reader=reader, role=role, annotator=annotator)
    flash(say("readers.taken", n=done["new"]))
    return redirect(url_for("readers.agreement"), 303)


@blueprint.errorhandler(RadiaError)
def refused(error: RadiaError) -> tuple[str, int]:
    """What Label Studio cannot be given, or did not give."""
    return _page(error=str(error)), 422


def _page(**values: Any) -> str:
    shared = context()
    try:
        states = queue_states(_run())
    except LabelError:
        states = None
    here = desk()
    return render_template(
        "readers/agreement.html",
        states=states,
        found=_agreement(shared.site.read_log, _stamp(shared.site.read_log)),
        findings=FINDINGS,
        paces={name: here.pace(name) for name in here.people()},
        people=[one.name for one in shared.accounts.all() if one.active],
        roles=_ROLES,
        **values,
    )


@lru_cache(maxsize=2)
def _agreement(log_file: Path, _stamp: tuple[int, int]) -> dict[str, Any] | None:
    """Computed once for each state of the log."""
    from radia.noise import reader_agreement

    log = read_log(context().site) if log_file.is_file() else None
    if log is None or log.empty:
        return None
    found = reader_agreement(log)
    order = {finding: place for place, finding in enumerate(FINDINGS)}
    found["findings"].sort(key=lambda row: order.get(row["finding"], len(order)))
    return found


def _stamp(file: Path) -> tuple[int, int]:
    if not file.is_file():
        return 0, 0
    seen = file.stat()
    return seen.st_mtime_ns, seen.st_size


def _reader_and_role() -> tuple[str, str]:
    """Of the form: an account of this site, and what it reads as."""
    reader, role = request.form.get("reader", ""), request.form.get("role", "")
    if context().accounts.find(reader) is None or role not in _ROLES:
        abort(400, say("readers.who"))
    return reader, role


def _run() -> Run:
    shared = context()
    return Run(shared.site, shared.settings, person().name)
