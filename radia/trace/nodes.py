"""The nodes of traces: an event, a snapshot, an image, a model, the people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radia.ledger import Action, Event, Ledger
from radia.trace.along import models_of, withdrawn_patients
from radia.trace.archive import Archive
from radia.trace.tree import Tree, present
from radia.workspace import Workspace

if TYPE_CHECKING:
    from radia.registry import Version


def uses_of(ledger: Ledger, subject: str) -> list[Tree]:
    """Who looked at it, predicted on it, read it or queued it; and that another file contradicts it."""
    uses = (Action.PREDICT, Action.READ, Action.QUEUE, Action.ACCESSED, Action.EXPORTED, Action.QUERIED)
    kinds = (Action.CONTRADICTION, *uses)
    found = [(kind, ledger.events(action=kind, term=subject, newest_first=True, limit=100)) for kind in kinds]
    return [
        Tree(str(kind), {"events": len(events)}, tuple(map(event_tree, events))) for kind, events in found if events
    ]


def event_tree(event: Event) -> Tree:
    """An event with its facts."""
    return Tree(f"{event.action} (event {event.sequence})", facts_of(event), event=event)


def facts_of(event: Event) -> dict[str, Any]:
    """What an event says."""
    return present(
        {
            "at": event.at,
            "by": event.actor,
            "code": event.code,
            "from": dict(event.inputs),
            "made": dict(event.outputs),
            **event.parameters,
            "files": dict(event.files),
        }
    )


def steps_tree(label: str, made: Iterable[Event], actions: Sequence[Action]) -> Tree:
    """The events of some actions under one label."""
    chosen = [event for event in made if event.action in actions]
    return Tree(label, {"events": len(chosen)} if chosen else {}, tuple(map(event_tree, chosen)))


def people_tree(events: Iterable[Event]) -> Tree:
    """Who did what in some events."""
    did: dict[str, list[str]] = {}
    for event in events:
        for person in {event.actor, *event.people}:
            did.setdefault(person, []).append(str(event.action))
    return Tree("people", {person: ", ".join(dict.fromkeys(actions)) for person, actions in sorted(did.items())})


def model_facts(model: Version | None) -> list[Tree]:
    """What MLflow knows of a model."""
    if model is None:
        return []
    kept = ("gate", "approval", "approver", "reason", "override", "withdrawn", "dvc", "commit", "dagster_run")
    facts = {name: model.tags.get(name, "") for name in kept}
    facts |= {"aliases": ", ".join(model.aliases), "version": f"{model.name}/{model.version}", "run": model.run_id}
    return [Tree("MLflow", present(facts))]


def snapshot_tree(site: Workspace, ledger: Ledger, digest: str) -> Tree:
    """A snapshot with all its images."""
    frozen = ledger.last(Action.SNAPSHOT, term=digest)
    facts: dict[str, Any] = {"digest": digest}
    if frozen is not None:
        facts |= {
            "frozen": frozen.at,
            "by": frozen.actor,
            "dvc": frozen.outputs.get("dvc", ""),
            "event": frozen.sequence,
        }
    folder = site.snapshots / digest
    if not (folder / "images.parquet").exists():
        where = "not on this machine: `radia restore` brings it back"
        return Tree(f"snapshot {digest[:12]}", present({**facts, "images": where}), event=frozen)
    rows = Archive(site).snapshot_rows(digest)
    facts |= {"images": len(rows), "patients": int(rows["patient"].nunique()), "studies": int(rows["study"].nunique())}
    split = {str(side): int(count) for side, count in rows["split"].value_counts().items()}
    sites = {str(name): int(count) for name, count in rows["site"].value_counts().items()}
    withdrawn = rows["patient"][rows["patient"].isin(withdrawn_patients(ledger))].nunique()
    facts |= {"split": split, "sites": sites, "withdrawn since": int(withdrawn) or ""}
    images = Tree("images", {"count": len(rows)}, rows=rows)
    return Tree(f"snapshot {digest[:12]}", present(facts), (images,), event=frozen)


def image_tree(archive: Archive, ledger: Ledger, row: Mapping[str, Any], *, models: bool = True) -> Tree:
    """An image of the manifest: its steps, labels, reads, snapshots, and who used it."""
    image, batch = str(row["image"]), str(row["batch"])
    place = ("image", "study", "patient", "site", "view", "source_sha256", "pixel_sha256", "shard", "row")
    steps = ledger.events(term=batch, action=[Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES])
    parts = [
        Tree(f"batch {batch}", {}, tuple(map(event_tree, steps))),
        *archive.cleaning(batch, image),
        *archive.quality(image),
        *archive.labels(str(row["study"])),
        *archive.suspects(str(row["study"])),
        *archive.reads(str(row["study"]), image),
    ]
    if models:
        parts += held_trees(ledger, archive.snapshots_with("image", image))
    parts += uses_of(ledger, image)
    return Tree(f"image {image}", present({name: row.get(name) for name in place}), tuple(parts))


def held_trees(ledger: Ledger, held: Sequence[Mapping[str, Any]]) -> list[Tree]:
    """The snapshots that hold something, each with the models that were trained on it."""
    trees = []
    for row in held:
        digest, models = (
            row["snapshot"],
            tuple(_model_tree(ledger, event, name, row["split"]) for event, name in models_of(ledger, row["snapshot"])),
        )
        facts = {"digest": digest, "split": row["split"], "images": row.get("images"), "labels": row.get("labels")}
        frozen = ledger.last(Action.SNAPSHOT, term=digest)
        trees.append(Tree(f"snapshot {digest[:12]}", present(facts), models, event=frozen))
    return trees


def _model_tree(ledger: Ledger, registered: Event, name: str, split: str | Mapping[str, int]) -> Tree:
    """A model that saw something: how it was judged, and what was decided about it."""
    judged = [
        ledger.last(action, term=registered.inputs[key])
        for action, key in ((Action.EVALUATE, "metrics"), (Action.GATE, "decision"))
        if key in registered.inputs
    ]
    decided = ledger.events(action=[Action.PROMOTE, Action.REJECT, Action.ROLLBACK], term=name)
    facts = {"registered": registered.at, "by": registered.actor, "used": _use_of(split)}
    events = [event for event in (*judged, *decided) if event is not None]
    return Tree(f"model {name}", present(facts), tuple(map(event_tree, events)), event=registered)


def _use_of(split: str | Mapping[str, int]) -> str:
    """What a model's training did with the images of a side, or of each side that holds some."""
    words = {"train": "trained on it", "validation": "thresholds chosen on it", "test": "evaluated on it"}
    if isinstance(split, str):
        return words.get(split, "")
    return ", ".join(f"{words[side]} ({split[side]:,})" for side in words if side in split)
