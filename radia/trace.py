"""Lineage: from a model to the images behind it, and from an image or a patient to the models that saw them.

The ledger says which step made what from what, by digest; the Parquet files whose digests it holds say which images a
batch or a snapshot has. Nothing here writes, and nothing identifies: ids are pseudonyms, sources are digests. How a
trace looks as text and JSON is here too (as a page: `radia.trace_page`); what MLflow knows is given as a value.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia.errors import UnknownId
from radia.findings import FINDINGS
from radia.ledger import Action, Event, Ledger
from radia.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    from rich.tree import Tree as RichTree

    from radia.registry import Version

CANDIDATE = "cxr-candidate"

SHOWN = 5
"""Rows of a table that text shows; JSON holds all."""

_MAKING = [str(action) for action in Action if action not in {"accessed", "queried", "predict", "read", "bundle"}]
"""Steps that make something from something: what lineage is followed along."""

_DECIDED_BY_PEOPLE = [Action.PROMOTE, Action.REJECT, Action.ROLLBACK, Action.READ, Action.WITHDRAW, Action.ERASE]

_IMAGE_COLUMNS = ("image", "study", "patient", "batch", "site", "split", "source_sha256", "pixel_sha256")


@dataclass(frozen=True)
class Tree:
    """A labelled node with facts, the nodes below it, a table where there are many of a kind, and the event it is."""

    label: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Tree, ...] = ()
    rows: pd.DataFrame | None = None
    event: Event | None = None

    def find(self, label: str) -> Tree | None:
        """The first node below (or this one) whose label begins so."""
        if self.label.startswith(label):
            return self
        return next((found for child in self.children if (found := child.find(label))), None)


# --- questions ------------------------------------------------------------------------------------------------------


def trace_model(site: Workspace, ledger: Ledger, version: str, model: Version | None = None) -> Tree:
    """What stands behind a model version: `3` (a candidate), `cxr-candidate/3`, or `cxr/2`.

    model: what MLflow knows of it (`radia.registry.find`), for gate, approval and aliases. Raises UnknownId.
    """
    name, origin = _candidate_of(ledger, version)
    registered = _registration(ledger, name, origin)
    made = list(_behind(ledger, registered))
    made = sorted({event.sequence: event for event in [*made, *_beside(ledger, made)]}.values(), key=_order)
    snapshots = _snapshots_of(registered, made)
    decisions = ledger.events(action=[Action.PROMOTE, Action.REJECT, Action.ROLLBACK], term=origin)
    parts = [
        *_model_facts(model),
        *(_snapshot_tree(site, ledger, digest) for digest in snapshots),
        _steps_tree("batches", made, (Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES)),
        _steps_tree("labels", made, (Action.LABELS, Action.SUSPECTS, Action.QUEUE, Action.READ)),
        _steps_tree("checks", made, (Action.CHECK, Action.QUALITY)),
        _steps_tree("training", made, (Action.BASE_MODEL, Action.TRAIN_BASE, Action.FINETUNE)),
        _steps_tree("evaluation", made, (Action.EVALUATE, Action.GATE)),
        _event_tree(registered),
        Tree("decisions", {}, tuple(_event_tree(event) for event in decisions)),
        _people_tree([*made, registered, *decisions]),
    ]
    facts = {
        "registered": registered.at,
        "by": registered.actor,
        "code": registered.code,
        "run": registered.outputs.get(origin, ""),
        "in use as": ", ".join(sorted({name for event in decisions for name in event.outputs if name != origin})),
        "ledger": str(registered.anchor),
    }
    return Tree(f"model {name}", _present(facts), tuple(part for part in parts if part.detail or part.children))


def events_behind(ledger: Ledger, model: str) -> list[Event]:
    """The events that stand behind a model version (named as in `trace_model`), in order: what made it, judged it,
    registered it, and what was decided about it. Raises UnknownId.
    """
    name, origin = _candidate_of(ledger, model)
    registered = _registration(ledger, name, origin)
    made = list(_behind(ledger, registered))
    decisions = ledger.events(action=[Action.PROMOTE, Action.REJECT, Action.ROLLBACK], term=origin)
    found = {event.sequence: event for event in [*made, *_beside(ledger, made), registered, *decisions]}
    return [found[sequence] for sequence in sorted(found)]


def trace_image(site: Workspace, ledger: Ledger, image_id: str) -> Tree:
    """Where an image came from, what was done to it, and which snapshots and models hold it.

    image_id: its pseudonym, or the SHA-256 of the file that was received. Raises UnknownId.
    """
    archive = _Archive(site)
    found = archive.images("image = ? OR source_sha256 = ?", image_id, image_id)
    if not found:
        refused = archive.refusals(image_id)
        if refused:
            return Tree(f"source file {image_id[:12]}", {}, tuple(Tree("refused", row) for row in refused))
        raise UnknownId(_unknown("image", "the archive", image_id, archive.near("image", image_id)))
    return _image_tree(archive, ledger, found[0])


def trace_patient(site: Workspace, ledger: Ledger, patient_id: str) -> Tree:
    """Everything about a patient's pseudonym: studies, images, snapshots with their side, models, withdrawal.

    Raises UnknownId.
    """
    archive = _Archive(site)
    found = archive.images("patient = ?", patient_id)
    withdrawals = ledger.events(action=[Action.WITHDRAW, Action.ERASE], term=patient_id)
    if not found and not withdrawals:
        raise UnknownId(_unknown("patient", "the archive", patient_id, archive.near("patient", patient_id)))
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
        *(Tree("withdrawal" if event.action == "withdraw" else "erasure", _facts_of(event)) for event in withdrawals),
        *(
            Tree(f"study {study}", {}, tuple(_image_tree(archive, ledger, row, models=False) for row in rows))
            for study, rows in studies.items()
        ),
        *_held_trees(ledger, held),
        *_uses(ledger, patient_id),
    ]
    return Tree(f"patient {patient_id}", _present(facts), tuple(parts))


def trace_batch(site: Workspace, ledger: Ledger, batch: str) -> Tree:
    """A landing batch: its steps, its images, and the snapshots and models that hold some of them. Raises UnknownId."""
    archive = _Archive(site)
    steps = ledger.events(term=batch, action=[Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES])
    rows = archive.images("batch = ?", batch)
    if not steps and not rows:
        raise UnknownId(_unknown("batch", "the archive", batch, archive.near("batch", batch)))
    facts = {"images": len(rows), "patients": len({row["patient"] for row in rows})}
    held = archive.snapshots_with("batch", batch)
    return Tree(f"batch {batch}", facts, (*map(_event_tree, steps), *_held_trees(ledger, held)))


def trace_person(ledger: Ledger, person: str) -> Tree:
    """What a person or an account did, approved or read, the newest first under each action. Raises UnknownId."""
    named = [
        event
        for event in ledger.events(action=_DECIDED_BY_PEOPLE, newest_first=True)
        if person in _named_people(event) and event.actor != person
    ]
    found: dict[str, list[Event]] = {}
    for event in [*ledger.events(actor=person, newest_first=True), *named]:
        found.setdefault(str(event.action), []).append(event)
    if not found:
        raise UnknownId(_unknown("person", "the ledger", person, ()))
    acts = [
        Tree(action, {"events": len(events), "last": events[0].at}, tuple(map(_event_tree, events[:SHOWN])))
        for action, events in sorted(found.items())
    ]
    return Tree(f"person {person}", {"events": sum(map(len, found.values()))}, tuple(acts))


def trace_event(ledger: Ledger, sequence: int) -> Tree:
    """One event, such as a check or a read: what it took and from which events, and what was made from what it gave.

    Raises LedgerError where there is none of that number.
    """
    event = ledger.event(sequence)
    later = {
        taker.sequence: taker
        for digest in filter(_is_digest, event.outputs.values())
        for taker in ledger.events(term=digest, after=sequence)
        if digest in taker.inputs.values()
    }
    parts = [
        _steps_tree("made from", list(_behind(ledger, event)), tuple(Action)),
        _steps_tree("used by", [later[number] for number in sorted(later)], tuple(Action)),
    ]
    return Tree(f"{event.action} (event {sequence})", _facts_of(event), tuple(part for part in parts if part.children))


def models_that_saw(site: Workspace, ledger: Ledger, patient_id: str) -> list[str]:
    """The registered models whose snapshot holds a patient, in the order of their registration."""
    held = _Archive(site).snapshots_with("patient", patient_id)
    found = {event.sequence: name for row in held for event, name in _models_of(ledger, row["snapshot"])}
    return [found[sequence] for sequence in sorted(found)]


# --- how a trace looks ----------------------------------------------------------------------------------------------


def render_text(tree: Tree, *, width: int = 120) -> str:
    """The trace as a terminal's tree."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=width, highlight=False, markup=False).print(_rich(tree))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def to_json(tree: Tree) -> dict[str, Any]:
    """The trace as JSON values: label, detail, children, and `rows` as {"columns": [...], "values": [[...], ...]}."""
    found: dict[str, Any] = {"label": tree.label, "detail": dict(tree.detail)}
    if tree.children:
        found["children"] = [to_json(child) for child in tree.children]
    if tree.rows is not None:
        found["rows"] = {"columns": list(tree.rows.columns), "values": _values(tree.rows)}
    return found


# --- along the ledger -----------------------------------------------------------------------------------------------


def _candidate_of(ledger: Ledger, version: str) -> tuple[str, str]:
    """The full name of a model version, and that of the candidate which it is or was copied from."""
    name = version if "/" in version else f"{CANDIDATE}/{version}"
    promoted = None if name.startswith(CANDIDATE) else ledger.last(Action.PROMOTE, term=name)
    origins = (made for made in promoted.inputs if made.startswith(CANDIDATE)) if promoted else iter(())
    return name, next(origins, name)


def _registration(ledger: Ledger, name: str, origin: str) -> Event:
    registered = ledger.last(Action.REGISTER, term=origin)
    if registered is None:
        raise UnknownId(_unknown("model version", "the ledger", name, _registered_names(ledger)))
    return registered


def _behind(ledger: Ledger, event: Event) -> Iterator[Event]:
    """Every event that made something an event took, and so on back, in the order in which they happened."""
    found: dict[int, Event] = {}
    waiting = [event]
    while waiting:
        taken = waiting.pop()
        for digest in set(taken.inputs.values()):
            if not _is_digest(digest):
                continue
            for maker in ledger.events(term=digest, action=_MAKING, newest_first=True):
                if maker.sequence < taken.sequence and digest in maker.outputs.values():
                    if maker.sequence not in found:
                        found[maker.sequence] = maker
                        waiting.append(maker)
                    break
    return iter([found[sequence] for sequence in sorted(found)])


def _beside(ledger: Ledger, made: Sequence[Event]) -> list[Event]:
    """What judged the same material without being on the way: the newest check of each kind, and the suspects."""
    found: dict[tuple[str, int], Event] = {}
    for event in made:
        if event.action != Action.SNAPSHOT:
            continue
        digests = {*filter(_is_digest, event.inputs.values()), event.outputs.get("snapshot", "")}
        for digest in digests - {""}:
            for action in (Action.CHECK, Action.QUALITY, Action.SUSPECTS):
                for judged in ledger.events(action=action, term=digest, newest_first=True):
                    if action == Action.SUSPECTS or judged.sequence < event.sequence:
                        key = (str(action), event.sequence)
                        found[key] = max(judged, found.get(key, judged), key=lambda one: one.sequence)
                        break
    return list({event.sequence: event for event in found.values()}.values())


def _is_digest(text: str) -> bool:
    return len(text) in (32, 64) and all(character in "0123456789abcdef" for character in text)


def _snapshots_of(registered: Event, made: Sequence[Event]) -> list[str]:
    named = [registered.inputs[name] for name in ("snapshot",) if name in registered.inputs]
    return list(dict.fromkeys([*named, *(e.outputs["snapshot"] for e in made if "snapshot" in e.outputs)]))


def _models_of(ledger: Ledger, snapshot: str) -> list[tuple[Event, str]]:
    """The registrations whose model was trained on a snapshot, each with the model's name."""
    registered = ledger.events(action=Action.REGISTER, term=snapshot)
    return [(event, name) for event in registered for name in event.outputs if "/" in name]


def _registered_names(ledger: Ledger) -> list[str]:
    newest = ledger.events(action=[Action.REGISTER, Action.PROMOTE], newest_first=True, limit=50)
    return list(dict.fromkeys(name for event in newest for name in event.outputs if "/" in name))


def _uses(ledger: Ledger, subject: str) -> list[Tree]:
    """Who looked at it, predicted on it, read it or queued it."""
    kinds = (Action.PREDICT, Action.READ, Action.QUEUE, Action.ACCESSED, Action.EXPORTED, Action.QUERIED)
    found = [(kind, ledger.events(action=kind, term=subject, newest_first=True, limit=100)) for kind in kinds]
    return [
        Tree(str(kind), {"events": len(events)}, tuple(map(_event_tree, events))) for kind, events in found if events
    ]


def _order(event: Event) -> int:
    return event.sequence


# --- nodes ----------------------------------------------------------------------------------------------------------


def _event_tree(event: Event) -> Tree:
    return Tree(f"{event.action} (event {event.sequence})", _facts_of(event), event=event)


def _facts_of(event: Event) -> dict[str, Any]:
    return _present(
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


def _steps_tree(label: str, made: Iterable[Event], actions: Sequence[Action]) -> Tree:
    chosen = [event for event in made if event.action in actions]
    return Tree(label, {"events": len(chosen)} if chosen else {}, tuple(map(_event_tree, chosen)))


def _people_tree(events: Iterable[Event]) -> Tree:
    did: dict[str, list[str]] = {}
    for event in events:
        for person in {event.actor, *_named_people(event)}:
            did.setdefault(person, []).append(str(event.action))
    return Tree("people", {person: ", ".join(dict.fromkeys(actions)) for person, actions in sorted(did.items())})


def _named_people(event: Event) -> list[str]:
    named = (event.parameters.get(role) for role in ("approver", "reader"))
    return [person for person in named if isinstance(person, str)]


def _model_facts(model: Version | None) -> list[Tree]:
    if model is None:
        return []
    kept = ("gate", "approval", "approver", "reason", "override", "withdrawn", "dvc", "commit", "dagster_run")
    facts = {name: model.tags.get(name, "") for name in kept}
    facts |= {"aliases": ", ".join(model.aliases), "version": f"{model.name}/{model.version}", "run": model.run_id}
    return [Tree("MLflow", _present(facts))]


def _snapshot_tree(site: Workspace, ledger: Ledger, digest: str) -> Tree:
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
        return Tree(f"snapshot {digest[:12]}", _present({**facts, "images": where}), event=frozen)
    rows = _Archive(site).snapshot_rows(digest)
    facts |= {"images": len(rows), "patients": int(rows["patient"].nunique()), "studies": int(rows["study"].nunique())}
    split = {str(side): int(count) for side, count in rows["split"].value_counts().items()}
    sites = {str(name): int(count) for name, count in rows["site"].value_counts().items()}
    withdrawn = sorted(set(rows["patient"]) & withdrawn_patients(ledger))
    facts |= {"split": split, "sites": sites, "withdrawn since": len(withdrawn) or ""}
    images = Tree("images", {"count": len(rows)}, rows=rows)
    return Tree(f"snapshot {digest[:12]}", _present(facts), (images,), event=frozen)


def withdrawn_patients(ledger: Ledger) -> frozenset[str]:
    """The pseudonyms of the patients who withdrew."""
    return frozenset(subject for event in ledger.events(action=Action.WITHDRAW) for subject in event.subjects)


def _image_tree(archive: _Archive, ledger: Ledger, row: Mapping[str, Any], *, models: bool = True) -> Tree:
    image, batch = str(row["image"]), str(row["batch"])
    place = ("image", "study", "patient", "site", "view", "source_sha256", "pixel_sha256", "shard", "row")
    steps = ledger.events(term=batch, action=[Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES])
    parts = [
        Tree(f"batch {batch}", {}, tuple(map(_event_tree, steps))),
        *archive.cleaning(batch, image),
        *archive.labels(str(row["study"])),
        *archive.suspects(str(row["study"])),
        *archive.reads(str(row["study"]), image),
    ]
    if models:
        parts += _held_trees(ledger, archive.snapshots_with("image", image))
    parts += _uses(ledger, image)
    return Tree(f"image {image}", _present({name: row.get(name) for name in place}), tuple(parts))


def _held_trees(ledger: Ledger, held: Sequence[Mapping[str, Any]]) -> list[Tree]:
    trees = []
    for row in held:
        digest, models = (
            row["snapshot"],
            tuple(
                _model_tree(ledger, event, name, row["split"]) for event, name in _models_of(ledger, row["snapshot"])
            ),
        )
        facts = {"digest": digest, "split": row["split"], "images": row.get("images"), "labels": row.get("labels")}
        frozen = ledger.last(Action.SNAPSHOT, term=digest)
        trees.append(Tree(f"snapshot {digest[:12]}", _present(facts), models, event=frozen))
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
    return Tree(f"model {name}", _present(facts), tuple(map(_event_tree, events)), event=registered)


def _use_of(split: str | Mapping[str, int]) -> str:
    """What a model's training did with the images of a side, or of each side that holds some."""
    words = {"train": "trained on it", "validation": "thresholds chosen on it", "test": "evaluated on it"}
    if isinstance(split, str):
        return words.get(split, "")
    return ", ".join(f"{words[side]} ({split[side]:,})" for side in words if side in split)


# --- the tables of the workspace ------------------------------------------------------------------------------------


class _Archive:
    """The Parquet files under the data folder, asked with SQL."""

    def __init__(self, site: Workspace) -> None:
        self._site = site

    @cached_property
    def _database(self) -> Any:
        import duckdb

        database = duckdb.connect(config={"threads": 2, "autoinstall_known_extensions": False})
        database.execute("SET enable_progress_bar = false")
        return database

    def images(self, condition: str, *values: str) -> list[dict[str, Any]]:
        """Rows of the manifest."""
        query = f"SELECT * FROM files WHERE {condition} ORDER BY study, image"  # noqa: S608 - conditions of this module
        return self._ask(self._manifest(), query, *values)

    def near(self, column: str, identifier: str) -> list[str]:
        """The ids most like one, where any is like it."""
        query = (
            f"SELECT DISTINCT {column} AS id, levenshtein({column}, ?) AS distance FROM files "  # noqa: S608
            "ORDER BY distance, id LIMIT 3"
        )
        near = self._ask(self._manifest(), query, identifier)
        return [row["id"] for row in near if row["distance"] <= max(2, len(identifier) // 3)]

    def refusals(self, source_sha256: str) -> list[dict[str, Any]]:
        """What a refused source file was refused for."""
        files = sorted(self._site.clean.glob("*/outcomes.parquet"))
        query = "SELECT reason, outcome FROM files WHERE source_sha256 = ?"
        return self._ask(files, query, source_sha256)

    def cleaning(self, batch: str, image: str) -> list[Tree]:
        """What de-identification did to an image."""
        rows = self._ask([self._site.clean / batch / "outcomes.parquet"], "SELECT * FROM files WHERE image = ?", image)
        kept = ("outcome", "profile", "table_sha256", "key_fingerprint", "boxes", "actions")
        return [Tree("de-identification", _present({name: _parsed(row.get(name)) for name in kept})) for row in rows]

    def labels(self, study: str) -> list[Tree]:
        """The labels given for a study, with their origin where it is known."""
        files = sorted(self._site.labels.glob("*.parquet"))
        found = []
        for file in files:
            for row in self._ask([file], "SELECT * FROM files WHERE study = ?", study):
                origin = {name: value for name, value in row.items() if name not in (*FINDINGS, "study")}
                found.append(Tree(f"labels {file.stem}", _present({**_labelled(row), "origin": _present(origin)})))
        return found

    def suspects(self, study: str) -> list[Tree]:
        """Labels of a study that were suspected."""
        file = self._site.suspects / "suspects.parquet"
        rows = self._ask([file], "SELECT * FROM files WHERE id = ? ORDER BY rank LIMIT 14", study)
        facts = {row["finding"]: {name: row[name] for name in ("given", "probability", "rank")} for row in rows}
        return [Tree("suspects", facts)] if facts else []

    def reads(self, study: str, image: str) -> list[Tree]:
        """What radiologists read."""
        found = []
        for file in sorted(self._site.reads.glob("*.parquet")):
            for column, identifier in (("study", study), ("image", image), ("id", study), ("id", image)):
                if column in _columns(file):
                    rows = self._ask([file], f'SELECT * FROM files WHERE "{column}" = ?', identifier)  # noqa: S608
                    found += [Tree(f"read in {file.stem}", _present(row)) for row in rows]
        return found

    def snapshots_with(self, column: str, identifier: str) -> list[dict[str, Any]]:
        """The snapshots on this machine that hold an image or a patient: digest, split, images and labels."""
        found = []
        for folder in sorted(self._site.snapshots.glob("*/images.parquet")):
            query = f"SELECT split, study, count(*) AS images FROM files WHERE {column} = ? GROUP BY ALL ORDER BY ALL"  # noqa: S608
            rows = self._ask([folder], query, identifier)
            if rows:
                sides: dict[str, int] = {}
                for row in rows:
                    sides[row["split"]] = sides.get(row["split"], 0) + row["images"]
                split = next(iter(sides)) if len(sides) == 1 else sides
                entry: dict[str, Any] = {"snapshot": folder.parent.name, "split": split}
                entry["images"] = sum(row["images"] for row in rows)
                if column == "image":
                    entry["labels"] = self._snapshot_labels(folder.parent, rows[0]["study"])
                found.append(entry)
        return found

    def snapshot_rows(self, digest: str) -> pd.DataFrame:
        """All images of a snapshot with their labels. Columns stay in Arrow: a million rows of text cost no objects."""
        import pandas as pd

        folder = self._site.snapshots / digest
        columns = ", ".join(f"images.{name}" for name in _IMAGE_COLUMNS)
        query = (
            f"SELECT {columns}, labels.* EXCLUDE (study) FROM read_parquet(?) AS images "  # noqa: S608
            "LEFT JOIN read_parquet(?) AS labels USING (study) ORDER BY images.image"
        )
        files = [str(folder / "images.parquet"), str(folder / "labels.parquet")]
        table = self._database.sql(query, params=files).to_arrow_table()
        rows: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return rows

    def _snapshot_labels(self, folder: Path, study: str) -> dict[str, Any]:
        rows = self._ask([folder / "labels.parquet"], "SELECT * FROM files WHERE study = ?", study)
        return _labelled(rows[0]) if rows else {}

    def _manifest(self) -> list[Path]:
        return sorted(self._site.manifest.glob("*.parquet"))

    def _ask(self, files: Sequence[Path], query: str, *values: str) -> list[dict[str, Any]]:
        present = [str(part) for file in files for part in _parts(file)]
        if not present:
            return []
        view = "(SELECT * FROM read_parquet(?, union_by_name = true)) AS files"
        text, parameters = query.replace("FROM files", f"FROM {view}"), [*values]
        before = query[: query.index("FROM files")].count("?")
        cursor = self._database.execute(text, [*parameters[:before], present, *parameters[before:]])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _parts(file: Path) -> list[Path]:
    """A table's file, or the files of one that is a folder of parts (a snapshot's: one a batch)."""
    return sorted(file.glob("*.parquet")) if file.is_dir() else [file] if file.is_file() else []


def _columns(file: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(file).names)


def _labelled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The findings that a row says something of."""
    return {name: row[name] for name in FINDINGS if row.get(name) is not None and row[name] == row[name]}


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", {}, [], ()) and value == value}


def _unknown(what: str, where: str, _asked: str, near: Sequence[str]) -> str:
    """Says what is near and never what was asked: a real patient's id could be typed by mistake."""
    hint = f"; the nearest: {', '.join(near[:3])}" if near else "; nothing there is like it"
    return f"no {what} of this id in {where}{hint}"


# --- text -----------------------------------------------------------------------------------------------------------


def _rich(tree: Tree) -> RichTree:
    from rich.text import Text
    from rich.tree import Tree as RichTree

    node = RichTree(Text(tree.label, style="bold"))
    for name, value in tree.detail.items():
        node.add(Text.assemble((f"{name}: ", "dim"), one_line(value)))
    for child in tree.children:
        node.add(_rich(child))
    if tree.rows is not None:
        for row in tree.rows.head(SHOWN).to_dict("records"):
            node.add(Text(_row_text(row)))
        if len(tree.rows) > SHOWN:
            node.add(Text(f"… and {len(tree.rows) - SHOWN:,} more (all of them with --json)", style="dim"))
    return node


def _row_text(row: Mapping[Any, Any]) -> str:
    positive = [name for name in FINDINGS if row.get(name) == 1]
    words = f"{row.get('image', '')} · {row.get('split', '')} · {row.get('batch', '')}"
    return f"{words} · source {str(row.get('source_sha256', ''))[:12]} · {', '.join(positive) or 'nothing found'}"


def one_line(value: Any) -> str:
    """A fact as text on one line; a digest cut short."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one_line(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"[{one_line(item)}]" if isinstance(item, list | tuple) else one_line(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and _is_digest(text) else text


def _values(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
