"""Everything re-checked at once: the ledger's chain, the files on disk, DVC's objects, and what MLflow keeps.

Each part names its first bad event, file, object or model in a ChainBroken. Nothing here writes or mends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from radia import registry
from radia.errors import ChainBroken, LedgerError, RegistryError
from radia.ledger import Action, Anchor, Event, Ledger, verify_artefacts
from radia.workspace import Workspace


@dataclass(frozen=True)
class Audit:
    """How much was found whole. authenticated: HMACs were checked; anchors: places known from outside the ledger."""

    events: int
    head: str
    authenticated: bool
    anchors: int
    artefacts: int
    objects: int
    models: int

    def as_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def audit(site: Workspace, ledger: Ledger) -> Audit:
    """Re-checks everything. Raises ChainBroken, naming the first that is bad; RegistryError where MLflow is away."""
    proven = ledger.verify(anchors_in_mlflow(site, ledger))
    return Audit(
        events=proven.events,
        head=str(proven.head),
        authenticated=proven.authenticated,
        anchors=proven.anchors,
        artefacts=verify_artefacts(site, ledger),
        objects=verify_objects(site, ledger),
        models=verify_models(site, ledger),
    )


def anchors_in_mlflow(site: Workspace, ledger: Ledger) -> list[Anchor]:
    """The ledger's heads that model versions carry in their tag `ledger`. Raises ChainBroken for one that is none."""
    if ledger.last(Action.REGISTER) is None:
        return []
    found = []
    for version in (*registry.versions(site, registry.CANDIDATE), *registry.versions(site, registry.MODEL)):
        if text := version.tags.get("ledger"):
            try:
                found.append(Anchor.parse(text))
            except LedgerError as error:
                raise ChainBroken(f"the tag `ledger` of {version.uri} was changed: it is no anchor") from error
    return found


def verify_objects(site: Workspace, ledger: Ledger) -> int:
    """Re-hashes every object in DVC's cache, those of recorded snapshots first; how many there are.

    An object's name is the MD5 of its content. Raises ChainBroken, naming the first one that is changed or missing.
    """
    cache = site.archive / ".dvc" / "cache" / "files" / "md5"
    checked: set[str] = set()
    for event in ledger.events(action=Action.SNAPSHOT):
        if (md5 := event.outputs.get("dvc")) is not None:
            for name in _objects_of(cache, md5, event, checked):
                checked.add(name)
    for path in sorted(cache.glob("??/*")) if cache.is_dir() else []:
        name = path.parent.name + path.name
        if name not in checked:
            _check_object(cache, name, "DVC's cache holds it")
            checked.add(name)
    return len(checked)


def verify_models(site: Workspace, ledger: Ledger) -> int:
    """Holds what MLflow keeps of every registered candidate to the digest in the ledger; how many there were.

    Raises ChainBroken, naming the first one whose params, metrics, tags, card, artefacts or model were changed.
    """
    checked = 0
    for event in ledger.events(action=Action.REGISTER):
        recorded = event.outputs.get("record")
        for name in (output for output in event.outputs if recorded and "/" in output):
            model, _, version = name.partition("/")
            try:
                found = registry.record_digest(site, model, version)
            except RegistryError as error:
                raise ChainBroken(f"{name} is not in MLflow as event {event.sequence} recorded it: {error}") from error
            if found != recorded:
                raise ChainBroken(f"what MLflow keeps of {name} was changed after event {event.sequence} recorded it")
            checked += 1
    return checked


def _objects_of(cache: Path, md5: str, event: Event, known: set[str]) -> Iterator[str]:
    """The objects of a versioned folder: its listing, then its files."""
    listing = f"{md5.removesuffix('.dir')}.dir"
    why = f"event {event.sequence} ({event.action}) recorded it"
    if listing not in known:
        content = _check_object(cache, listing, why)
        yield listing
        for entry in json.loads(content):
            if entry["md5"] not in known:
                _check_object(cache, entry["md5"], why)
                yield entry["md5"]


def _check_object(cache: Path, name: str, why: str) -> bytes:
    path = cache / name[:2] / name[2:]
    if not path.is_file():
        raise ChainBroken(f"DVC's object {name} is missing: {why}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != name.removesuffix(".dir"):
        raise ChainBroken(f"DVC's object {name} was changed: {why}")
    return path.read_bytes() if name.endswith(".dir") else b""
