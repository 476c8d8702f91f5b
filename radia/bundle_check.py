"""Checks an evidence bundle: `python verify.py BUNDLE.zip`. Needs Python and nothing else: a copy lies in every bundle.

What it proves: no file of the bundle was changed; each event shown has its place in the hash chain that ends at the
head; the head is one line to compare with an anchor kept elsewhere (MLflow's tag `ledger`, `ledger.anchor`, a letter).
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

CONTENTS, EVENTS, HEAD, IMAGES, PROOF = "contents.json", "events.txt", "head.json", "images.json", "proof.txt"


class Mismatch(Exception):
    """The bundle does not prove what it says. Names the first thing that does not fit."""


def check(path: Path) -> dict[str, Any]:
    """model, events, files and head of a bundle that is whole. Raises Mismatch."""
    contents = _contents(path)
    try:
        return _check(contents)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Mismatch(f"{EVENTS}, {PROOF} or {HEAD} is not written as a bundle's are") from error


def _check(contents: dict[str, bytes]) -> dict[str, Any]:
    head = json.loads(contents[HEAD])
    shown = _events(contents[EVENTS].decode())
    last = _chain(contents[PROOF].decode(), shown)
    if head["head"] != last:
        raise Mismatch(f"the chain ends at event {last.partition(':')[0]} with another hash than {HEAD} says")
    if head["events"] != len(shown):
        raise Mismatch(f"{EVENTS} holds {len(shown)} events, {HEAD} says {head['events']}")
    for number, event in shown.items():
        _files_of(number, json.loads(event), contents)
    return {"model": head["model"], "events": len(shown), "files": len(contents), "head": last}


def _contents(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        # zipfile's own: NotImplementedError for a packing it does not know, RuntimeError for an encrypted member
        raise Mismatch("the file is cut short or is no bundle") from error
    if CONTENTS not in contents:
        raise Mismatch(f"{CONTENTS} is missing")
    listed = json.loads(contents.pop(CONTENTS))
    for name in sorted({*listed, *contents}):
        if name not in contents:
            raise Mismatch(f"{name} is missing")
        if hashlib.sha256(contents[name]).hexdigest() != listed.get(name):
            raise Mismatch(f"{name} was changed")
    return contents


def _events(text: str) -> dict[int, str]:
    shown = {}
    for line in text.split("\n"):
        if line:
            number, _, body = line.partition("\t")
            shown[int(number)] = body
    return shown


def _chain(proof: str, shown: dict[int, str]) -> str:
    """Follows the chain through every digest, and holds each event shown to its own. The last `<sequence>:<hash>`."""
    first, *links = proof.split("\n")
    last, number, missing = bytes.fromhex(first), 0, dict(shown)
    for link in filter(None, links):
        text, _, digest = link.partition(" ")
        if number and int(text) != number + 1:
            raise Mismatch(f"{PROOF} leaves out event {number + 1}")
        number = int(text)
        body = missing.pop(number, None)
        if body is not None and hashlib.sha256(body.encode()).hexdigest() != digest:
            raise Mismatch(f"event {number} was changed")
        last = hashlib.sha256(last + bytes.fromhex(digest)).digest()
    if missing:
        raise Mismatch(f"{PROOF} does not reach event {min(missing)}")
    return f"{number}:{last.hex()}"


def _files_of(number: int, event: dict[str, Any], contents: dict[str, bytes]) -> None:
    """A file of the bundle that an event recorded by digest must be that file."""
    recorded = {**event.get("inputs", {}), **event.get("outputs", {})}
    for name, kind in (("files/metrics.json", "metrics"), ("files/decision.json", "decision")):
        if event["action"] == "register" and name in contents and kind in recorded:
            found = hashlib.sha256(contents[name]).hexdigest()
            if found != recorded[kind]:
                raise Mismatch(f"{name} is not what event {number} recorded")


if __name__ == "__main__":
    try:
        print(json.dumps(check(Path(sys.argv[1]))))
    except Mismatch as mismatch:
        sys.exit(f"NOT PROVEN: {mismatch}")
