"""The questions: a model, an image, a patient, a batch, a person, an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radia.errors import UnknownId
from radia.ledger import Action, Event, Ledger
from radia.trace.along import (
    behind,
    beside,
    candidate_of,
    is_digest,
    models_of,
    registration_of,
    snapshots_of,
)
from radia.trace.archive import Archive
from radia.trace.nodes import (
    event_tree,
    facts_of,
    held_trees,
    image_tree,
    model_facts,
    people_tree,
    snapshot_tree,
    steps_tree,
    uses_of,
)
from radia.trace.text import SHOWN
from radia.trace.tree import Tree, nearest, present, unknown
from radia.workspace import Workspace

if TYPE_CHECKING:
    from radia.registry import Version


def trace_model(site: Workspace, ledger: Ledger, version: str, model: Version | None = None) -> Tree:
    """What stands behind a model version: `3` (a candidate), `cxr-candidate/3`, or `cxr/2`.

    model: what MLflow knows of it (`radia.registry.find`), for gate, approval and aliases. Raises UnknownId.
    """
    name, origin = candidate_of(ledger, version)
    registered = registration_of(ledger, name, origin)
    made = list(behind(ledger, registered))
    made = sorted({event.sequence: event for event in [*made, *beside(ledger, made)]}.values(), key=_order)
    snapshots = snapshots_of(registered, made)
    decisions = ledger.events(action=[Action.PROMOTE, Action.REJECT, Action.ROLLBACK], term=origin)
    parts = [
        *model_facts(model),
        *(snapshot_tree(site, ledger, digest) for digest in snapshots),
        steps_tree("batches", made, (Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES)),
        steps_tree("labels", made, (Action.LABELS, Action.SUSPECTS, Action.QUEUE, Action.READ)),
        steps_tree("checks", made, (Action.CHECK, Action.QUALITY)),
        steps_tree("training", made, (Action.BASE_MODEL, Action.TRAIN_BASE, Action.FINETUNE)),
        steps_tree("evaluation", made, (Action.EVALUATE, Action.GATE)),
        event_tree(registered),
        Tree("decisions", {}, tuple(event_tree(event) for event in decisions)),
        people_tree([*made, registered, *decisions]),
    ]
    facts = {
        "registered": registered.at,
        "by": registered.actor,
        "code": registered.code,
        "run": registered.outputs.get(origin, ""),
        "in use as": ", ".join(sorted({name for event in decisions for name in event.outputs if name != origin})),
        "ledger": str(registered.anchor),
    }
    return Tree(f"model {name}", present(facts), tuple(part for part in parts if part.detail or part.children))


def trace_image(site: Workspace, ledger: Ledger, image_id: str) -> Tree:
    """Where an image came from, what was done to it, and which snapshots and models hold it.

    image_id: its pseudonym, or the SHA-256 of the file that was received. Raises UnknownId.
    """
    archive = Archive(site)
    found = archive.images("image = ? OR source_sha256 = ?", image_id, image_id)
    if not found:
        refused = archive.refusals(image_id)
        if refused:
            return Tree(f"source file {image_id[:12]}", {}, tuple(Tree("refused", row) for row in refused))
        raise UnknownId(unknown("image", "the archive", image_id, archive.near("image", image_id)))
    return image_tree(archive, ledger, found[0])


def trace_patient(site: Workspace, ledger: Ledger, patient_id: str) -> Tree:
    """Everything about a patient's pseudonym: studies, images, snapshots with their side, models, withdrawal.

    Raises UnknownId.
    """
    archive = Archive(site)
    found = archive.images("patient = ?", patient_id)
    withdrawals = ledger.events(action=[Action.WITHDRAW, Action.ERASE], term=patient_id)
    if not found and not withdrawals:
        raise UnknownId(unknown("patient", "the archive", patient_id, archive.near("patient", patient_id)))
    studies: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        studies.setdefault(row["study"], []).append(row)
    held = archive.snapshots_with("patient", patient_id)
    facts = {
        "images": len(found),
        "studies": len(studies),
        "sites": ", ".join(sorted({row["site"] for row in found})),
        "withdrawn": withdrawals[0].at if withdrawals else "",
    }
    parts = [
        *(Tree("withdrawal" if event.action == "withdraw" else "erasure", facts_of(event)) for event in withdrawals),
        *(
            Tree(f"study {study}", {}, tuple(image_tree(archive, ledger, row, models=False) for row in rows))
            for study, rows in studies.items()
        ),
        *held_trees(ledger, held),
        *uses_of(ledger, patient_id),
    ]
    return Tree(f"patient {patient_id}", present(facts), tuple(parts))


def names_of_patient(site: Workspace, ledger: Ledger, patient_id: str) -> list[str]:
    """All names under which a patient's information is kept: the pseudonym, studies, images, batches. Raises UnknownId.

    A patient who was erased has only the pseudonym left.
    """
    archive = Archive(site)
    found = archive.images("patient = ?", patient_id)
    if not found and not ledger.events(term=patient_id, limit=1):
        raise UnknownId(unknown("patient", "the archive", patient_id, archive.near("patient", patient_id)))
    return list(dict.fromkeys([patient_id, *(str(row[name]) for name in ("study", "image", "batch") for row in found)]))


def trace_batch(site: Workspace, ledger: Ledger, batch: str) -> Tree:
    """A landing batch: its steps, its images, and the snapshots and models that hold some of them. Raises UnknownId."""
    archive = Archive(site)
    steps = ledger.events(term=batch, action=[Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES])
    rows = archive.images("batch = ?", batch)
    if not steps and not rows:
        raise UnknownId(unknown("batch", "the archive", batch, archive.near("batch", batch)))
    facts = {"images": len(rows), "patients": len({row["patient"] for row in rows})}
    held = archive.snapshots_with("batch", batch)
    return Tree(f"batch {batch}", facts, (*map(event_tree, steps), *held_trees(ledger, held)))


def trace_person(ledger: Ledger, person: str) -> Tree:
    """What a person or an account did, approved, read or asked, the newest first under each action. Raises UnknownId.

    Also what an account wrote down on the person's word: an approval, a read, a re-identification done for them.
    """
    found = ledger.of_person(person)
    if not found:
        raise UnknownId(unknown("person", "the ledger", person, nearest(person, ledger.people())))
    acts = []
    for action, numbers in sorted(found.items()):
        newest = [ledger.event(number) for number in reversed(numbers[-SHOWN:])]
        acts.append(Tree(action, {"events": len(numbers), "last": newest[0].at}, tuple(map(event_tree, newest))))
    return Tree(f"person {person}", {"events": sum(map(len, found.values()))}, tuple(acts))


def trace_event(ledger: Ledger, sequence: int) -> Tree:
    """One event, such as a check or a read: what it took and from which events, and what was made from what it gave.

    Raises LedgerError where there is none of that number.
    """
    event = ledger.event(sequence)
    later = {
        taker.sequence: taker
        for digest in filter(is_digest, event.outputs.values())
        for taker in ledger.events(term=digest, after=sequence)
        if digest in taker.inputs.values()
    }
    parts = [
        steps_tree("made from", list(behind(ledger, event)), tuple(Action)),
        steps_tree("used by", [later[number] for number in sorted(later)], tuple(Action)),
    ]
    return Tree(f"{event.action} (event {sequence})", facts_of(event), tuple(part for part in parts if part.children))


def models_that_saw(site: Workspace, ledger: Ledger, patient_id: str) -> list[str]:
    """The registered models whose snapshot holds a patient, in the order of their registration."""
    held = Archive(site).snapshots_with("patient", patient_id)
    found = {event.sequence: name for row in held for event, name in models_of(ledger, row["snapshot"])}
    return [found[sequence] for sequence in sorted(found)]


def _order(event: Event) -> int:
    return event.sequence
