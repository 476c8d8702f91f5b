"""The evidence behind one model version in one file, and its check, which needs nothing but Python.

`write_bundle` puts into a ZIP: the ledger's events that stand behind the version, whole; for every other event since
the first of them only the SHA-256 of its body, so that the chain up to the head is proven without showing anything
else; the images of the snapshot by digest; and the files given (card, decision, metrics, params, lock). `verify.py` in
it is this module's `check` by itself. Nothing here decides what a bundle means.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from radia import bundle_check
from radia.bundle_check import CONTENTS, EVENTS, HEAD, IMAGES, PROOF
from radia.errors import ChainBroken
from radia.ledger import GENESIS, Action, Event, Ledger
from radia.trace import Tree, events_behind, to_json
from radia.workspace import Workspace, written_whole

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Checked:
    """What a bundle proved: the model, how many events and files it holds, and the head that the chain leads to."""

    model: str
    events: int
    files: int
    head: str


def write_bundle(
    site: Workspace, ledger: Ledger, trace: Tree, target: Path, *, files: Mapping[str, bytes], actor: str
) -> Path:
    """Writes the evidence behind a traced model (`trace_model`) to `target`. The same evidence gives the same bytes.

    files: name in the bundle -> content: the model card, decision.json, metrics.json, params.yaml, requirements.lock …
    An event in the ledger says who took it and what its digest is. Raises UnknownId, LedgerError.
    """
    model = trace.label.removeprefix("model ")
    shown = events_behind(ledger, model)
    contents = {
        **{f"files/{name}": content for name, content in files.items()},
        EVENTS: "".join(f"{event.sequence}\t{event.body}\n" for event in shown).encode(),
        PROOF: _proof(ledger, shown),
        IMAGES: _images(trace),
    }
    contents[HEAD] = _json({"model": model, "head": str(shown[-1].anchor), "events": len(shown)})
    contents["verify.py"] = Path(bundle_check.__file__).read_bytes()
    contents[CONTENTS] = _json(
        {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    )
    with written_whole(target) as partial:
        partial.write_bytes(_zipped(contents))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    ledger.append(Action.BUNDLE, actor=actor, inputs={model: shown[-1].hash}, outputs={"bundle": digest})
    return target


def verify_bundle(path: Path, *, ledger: Ledger | None = None) -> Checked:
    """Re-checks a bundle; against a ledger too, where one is at hand. Raises ChainBroken, naming the first mismatch."""
    try:
        found = bundle_check.check(path)
    except bundle_check.Mismatch as mismatch:
        raise ChainBroken(f"{path.name}: {mismatch}") from mismatch
    if ledger is not None:
        number, _, hash_ = found["head"].partition(":")
        if ledger.event(int(number)).hash != hash_:
            raise ChainBroken(f"{path.name}: its head is not event {number} of this ledger")
    return Checked(found["model"], found["events"], found["files"], found["head"])


def _proof(ledger: Ledger, shown: Sequence[Event]) -> bytes:
    """`<sequence> <SHA-256 of the body>` from the first event shown to the last, after the hash before the first."""
    first, last = shown[0], shown[-1]
    lines = [first.previous or GENESIS]
    for sequence, digest, _ in ledger.proofs(after=first.sequence - 1):
        if sequence > last.sequence:
            break
        lines.append(f"{sequence} {digest}")
    return "\n".join([*lines, ""]).encode()


def _images(trace: Tree) -> bytes:
    rows = [child for child in trace.children if child.label.startswith("snapshot")]
    return _json([to_json(child) for child in rows])


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, default=str).encode()


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()
