"""Everything re-checked at once: the ledger's chain, the files on disk, DVC's objects, and what MLflow keeps.

Each part names its first bad event, file, object or model in a ChainBroken. Nothing here writes or mends.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from radia import images, registry, snapshot
from radia.errors import ChainBroken, LedgerError, RegistryError, ShardDamaged, SnapshotError
from radia.ledger import Action, Anchor, Event, Ledger, verify_artefacts
from radia.workspace import Workspace

logger = logging.getLogger(__name__)


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
    proven = ledger.verify([*anchors_in_mlflow(site, ledger), *anchors_in_snapshots(site)])
    return Audit(
        events=proven.events,
        head=str(proven.head),
        authenticated=proven.authenticated,
        anchors=proven.anchors,
        artefacts=verify_artefacts(site, ledger),
        objects=verify_objects(site, ledger) + verify_shards(site, ledger),
        models=verify_models(site, ledger) + verify_models_in_use(site, ledger),
    )


def anchors_in_mlflow(site: Workspace, ledger: Ledger) -> list[Anchor]:
    """The ledger's heads that model versions carry in their tag `ledger`. Raises ChainBroken for one that is none."""
    try:
        if ledger.last(Action.REGISTER) is None:
            return []
    except (LedgerError, ValueError):
        logger.debug("the newest registration cannot be read: the chain's own check names it")
    found = []
    for version in (*registry.versions(site, registry.CANDIDATE), *registry.versions(site, registry.MODEL)):
        if text := version.tags.get("ledger"):
            try:
                found.append(Anchor.parse(text))
            except LedgerError as error:
                raise ChainBroken(f"the tag `ledger` of {version.uri} was changed: it is no anchor") from error
    return found


def anchors_in_snapshots(site: Workspace) -> list[Anchor]:
    """The places of the chain that the records of snapshots keep. Raises ChainBroken for one that is none."""
    try:
        kept = snapshot.anchors(site.archive)
    except SnapshotError as error:
        raise ChainBroken(str(error)) from error
    found = []
    for digest, text in kept.items():
        try:
            found.append(Anchor.parse(text))
        except LedgerError as error:
            raise ChainBroken(f"the record of snapshot {digest[:12]} was changed: its `ledger` is no anchor") from error
    return found


def verify_objects(site: Workspace, ledger: Ledger) -> int:
    """Re-hashes every object in DVC's cache, those of recorded snapshots first; how many there are.

    An object's name is the MD5 of its content. A snapshot's own files, where it lies on this machine, are held to their
    objects. Raises ChainBroken, naming the first object or file that is changed or missing.
    """
    cache = site.archive / ".dvc" / "cache" / "files" / "md5"
    checked: set[str] = set()
    for event in ledger.events(action=Action.SNAPSHOT):
        if (md5 := event.outputs.get("dvc")) is not None:
            for version in _versions_of(site, md5, event):
                for name in _objects_of(cache, version, event, checked):
                    checked.add(name)
            _check_snapshot(site, cache, md5, event)
    for path in sorted(cache.glob("??/*")) if cache.is_dir() else []:
        name = path.parent.name + path.name
        if name not in checked:
            _check_object(cache, name, "DVC's cache holds it")
            checked.add(name)
    return len(checked)


def verify_shards(site: Workspace, ledger: Ledger) -> int:
    """Holds the shards of every batch to the digests in its index, which the ledger records; how many batches.

    Raises ChainBroken, naming the first shard that is changed or missing.
    """
    batches = {name: event for event in ledger.events(action=Action.IMAGES) for name in event.outputs}
    checked = 0
    for batch, event in batches.items():
        if not (site.images / batch / images.INDEX).is_file():
            continue  # a file that the event records: named there
        try:
            images.verify_batch(site.images, batch)
        except ShardDamaged as error:
            raise ChainBroken(f"{error} (event {event.sequence} recorded the batch)") from error
        checked += 1
    return checked


def verify_models_in_use(site: Workspace, ledger: Ledger) -> int:
    """Holds the models that people approved to what the ledger says of it; how many there are.

    Run, evidence, approver, reason and override of each version of `cxr` that was promoted, and which one is in use.
    Raises ChainBroken, naming the first version of which MLflow says something else.
    """
    promoted = {name: event for event in ledger.events(action=Action.PROMOTE) for name in event.outputs}
    if not promoted:
        return 0
    known = {f"{one.name}/{one.version}": one for one in registry.versions(site, registry.MODEL)}
    candidates = {f"{one.name}/{one.version}": one for one in registry.versions(site, registry.CANDIDATE)}
    for name, event in promoted.items():
        if (version := known.get(name)) is None or version.run_id != event.outputs[name]:
            raise ChainBroken(f"{name} is not in MLflow as event {event.sequence} ({event.action}) recorded it")
        evidence = {key: event.inputs[key] for key in (*registry.EVIDENCE, "decision") if key in event.inputs}
        _check_tags(version, {**evidence, **_said_in(event)}, event)
        original = candidates.get(version.tags.get("promoted", ""))
        if original is None or registry.is_changed_copy(version, original):
            raise ChainBroken(
                f"{name} is no copy of the candidate that event {event.sequence} promoted: tags or card was changed"
            )
        later = ledger.last(Action.REJECT, term=f"{original.name}/{original.version}")
        if later is None or later.sequence < event.sequence:
            _check_tags(original, {key: value for key, value in _said_in(event).items() if key != "override"}, event)
    decided = ledger.events(action=[Action.PROMOTE, Action.ROLLBACK], newest_first=True, limit=1)[0]
    in_use = next((name for name, version in known.items() if registry.CHAMPION in version.aliases), "none")
    if in_use not in decided.outputs:
        meant = ", ".join(decided.outputs)
        raise ChainBroken(f"{in_use} is in use, though event {decided.sequence} ({decided.action}) put {meant} in use")
    return len(promoted)


def _said_in(event: Event) -> dict[str, str]:
    """What the person who approved said, as MLflow's tags have it."""
    return {key: str(event.parameters.get(key) or "") for key in ("approver", "reason", "override")}


def _check_tags(version: registry.Version, meant: dict[str, str], event: Event) -> None:
    for key, value in meant.items():
        if version.tags.get(key, "").strip() != value[:5000].strip():  # 5,000 letters are what a tag of MLflow holds
            name = f"{version.name}/{version.version}"
            raise ChainBroken(f"the tag `{key}` of {name} was changed after event {event.sequence} recorded it")


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


def _versions_of(site: Workspace, md5: str, event: Event) -> list[str]:
    """The objects that DVC's record of a snapshot names: its listing, which must be the event's, and its batches'."""
    digest = event.outputs.get("snapshot", "")
    try:
        named = snapshot.named_objects(site.archive, digest)
    except SnapshotError as error:
        raise ChainBroken(str(error)) from error
    if named is not None and named[0].removesuffix(".dir") != md5.removesuffix(".dir"):
        why = f"event {event.sequence} ({event.action}) recorded it"
        raise ChainBroken(f"DVC's record of snapshot {digest[:12]} names another object than it did: {why}")
    return named or [md5]


def _check_snapshot(site: Workspace, cache: Path, md5: str, event: Event) -> None:
    """The files of a snapshot that lies on this machine: each the object that the ledger's event names."""
    folder = site.snapshots / event.outputs.get("snapshot", "")
    if not folder.is_dir() or folder == site.snapshots:
        return  # elsewhere, or put away: `radia restore` brings it back
    listing = f"{md5.removesuffix('.dir')}.dir"
    for entry in json.loads((cache / listing[:2] / listing[2:]).read_bytes()):
        path, kept = folder / entry["relpath"], cache / entry["md5"][:2] / entry["md5"][2:]
        name = path.relative_to(site.root)
        if not path.is_file():
            raise ChainBroken(f"{name} is missing: event {event.sequence} ({event.action}) recorded it")
        if not path.samefile(kept) and _md5_of(path) != entry["md5"]:
            raise ChainBroken(f"{name} was changed after event {event.sequence} ({event.action}) recorded it")


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _check_object(cache: Path, name: str, why: str) -> bytes:
    path = cache / name[:2] / name[2:]
    if not path.is_file():
        raise ChainBroken(f"DVC's object {name} is missing: {why}")
    if _md5_of(path) != name.removesuffix(".dir"):
        raise ChainBroken(f"DVC's object {name} was changed: {why}")
    return path.read_bytes() if name.endswith(".dir") else b""
