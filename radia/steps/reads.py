"""Steps of blind re-reading: what is to be read, sheets out and in, what was decided, how many reads are needed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.errors import LabelError, SnapshotError
from radia.findings import FINDINGS
from radia.ledger import Action, file_digests
from radia.steps.data import current_snapshot
from radia.steps.run import Outcome, Run
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd

    from radia.reads import Plan
    from radia.snapshot import Snapshot

PICTURE_SIDE = 1536
"""Pixels of a film's edge, where it is shown elsewhere as a picture."""


def queue_reads(run: Run, *, budget: int | None = None) -> Outcome:
    """Asks for `budget` more reads in three queues, or, without one, for as many as params.yaml says if none waits.

    Raises LabelError, SnapshotError.
    """
    with _alone(run.workspace):
        waiting = _waiting(run)
        wanted = run.settings.reads.budget if budget is None else budget
        if budget is None and (waiting or not wanted):
            return Outcome("queue", {}, {}, {"queued": 0, "waiting": waiting}, reused=True)
        return _drawn(run, wanted)


def export_reads(run: Run, target: Path, *, reader: str, role: str = "reader") -> dict[str, Any]:
    """Writes the sheet (CSV) of everything this person can read now: studies, paths of their pictures, empty findings.

    Raises LabelError where nothing waits for this person.
    """
    sheet = _sheet(run, reader, role)
    with written_whole(target) as partial:
        sheet.rename(columns={"id": "study"}).to_csv(partial, index=False)
    _exported(run, "reading sheet", sheet, digests.of_file(target), reader=reader, role=role)
    return {"studies": len(sheet), "reader": reader, "role": role, "sheet": str(target)}


def export_label_studio(run: Run, target: Path, *, reader: str, role: str = "reader") -> dict[str, Any]:
    """Writes a folder for Label Studio: `tasks.json`, `interface.xml` and the pictures, of what this person can read.

    A study's films stand side by side in one PNG. Raises LabelError where nothing waits for this person.
    """
    from radia.label_studio import interface, tasks

    sheet = _sheet(run, reader, role)
    with written_whole(target) as partial:
        (partial / "films").mkdir(parents=True)
        pictures = {}
        for number, (study, paths) in enumerate(zip(sheet["id"], sheet["image"], strict=True), 1):
            name = f"films/{number:04d}.png"
            _write_picture([run.workspace.root / path for path in str(paths).split("; ")], partial / name)
            pictures[str(study)] = f"{target.name}/{name}"
        (partial / "tasks.json").write_text(json.dumps(tasks(sheet, pictures), indent=1) + "\n", encoding="utf-8")
        (partial / "interface.xml").write_text(interface(FINDINGS), encoding="utf-8")
    digest = digests.of_file(target / "tasks.json")
    _exported(run, "Label Studio tasks", sheet, digest, reader=reader, role=role)
    return {"studies": len(sheet), "reader": reader, "role": role, "folder": str(target)}


def import_label_studio(
    run: Run, exported: Path, *, reader: str, role: str = "reader", annotator: str = ""
) -> dict[str, Any]:
    """Takes one person's annotations of a JSON export of Label Studio into the log. Raises LabelError and its kinds."""
    from radia.label_studio import sheet_of

    try:
        content = json.loads(exported.read_bytes())
    except ValueError as error:
        raise LabelError("this is no JSON export of Label Studio") from error
    table = sheet_of(content, FINDINGS, annotator=annotator)
    evidence = {"sheet": digests.of_file(exported)}
    return add_reads(run, table, reader=reader, role=role, source="label studio", evidence=evidence)


def _sheet(run: Run, reader: str, role: str) -> pd.DataFrame:
    """The blind sheet of everything this person can read now. Raises LabelError where nothing waits for them."""
    from radia.read_log import ADJUDICATOR, disagreements, export_blind, open_for

    site, needed = run.workspace, run.settings.reads.readers
    log = read_log(site)
    asked = open_for(reader, read_queue(site), log, role=role, readers_needed=needed)
    if asked.empty:
        raise LabelError(f"nothing waits for this {role}: `radia reads status` says what is open")
    disputed = disagreements(log, readers_needed=needed) if role == ADJUDICATOR and log is not None else None
    return export_blind(asked, FINDINGS, images=_pictures(site), to_decide=disputed, seed=run.settings.seed)


def _exported(run: Run, what: str, sheet: pd.DataFrame, digest: str, *, reader: str, role: str) -> None:
    run.ledger.append(
        Action.EXPORTED,
        actor=run.actor,
        outputs={"sheet": digest},
        parameters={"what": what, "reader": reader, "role": role, "studies": len(sheet)},
        subjects=sheet["id"],
    )


def _write_picture(films: list[Path], target: Path) -> None:
    """The films of a study side by side, as they are meant to be seen, as a PNG."""
    import numpy as np
    from PIL import Image

    from radia.dicom.pixels import read_gray
    from radia.images import letterbox

    Image.fromarray(np.hstack([letterbox(read_gray(film), PICTURE_SIDE) for film in films])).save(target)


def import_reads(
    run: Run, sheet: Path, *, reader: str, role: str = "reader", model_visible: bool = False
) -> dict[str, Any]:
    """Takes a filled-in sheet into the log. Raises LabelError and its kinds; then nothing was taken."""
    from radia.tables import read_table

    evidence = {"sheet": digests.of_file(sheet)}
    return add_reads(run, read_table(sheet), reader=reader, role=role, model_visible=model_visible, evidence=evidence)


def add_reads(
    run: Run,
    table: pd.DataFrame,
    *,
    reader: str,
    role: str = "reader",
    model_visible: bool = False,
    source: str = "file",
    evidence: dict[str, str] | None = None,
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Adds one person's reads to the log, decides anew what is decided, and tells the ledger who read what.

    table: indexed by study, findings as columns. evidence: digests of what the reads came from. details: what else the
    ledger keeps of them, such as the time they took; a look at a film that gave no value is recorded only with some.
    Raises LabelError.
    """
    from radia.read_log import import_reads, summary

    site = run.workspace
    with _alone(site):
        before = read_log(site)
        log = import_reads(
            table,
            reader=reader,
            queue=read_queue(site),
            log=before,
            model_visible=model_visible,
            role=role,
            source=source,
            readers_needed=run.settings.reads.readers,
            findings=FINDINGS,
        )
        new = log.iloc[0 if before is None else len(before) :]
        written = [site.read_log, site.reads / "reads.parquet", site.gold_reads]
        if len(new):
            _write(log, site.read_log)
            _settle(run, log)
        if len(new) or details:
            run.ledger.append(
                Action.READ,
                actor=run.actor,
                inputs=evidence or {},
                outputs={"log": digests.of_file(site.read_log)} if len(new) else {},
                parameters={
                    "reader": reader,
                    "role": role,
                    "source": source,
                    "reads": len(new),
                    "model_visible": model_visible,
                    **(details or {}),
                },
                subjects=new["id"].unique() if len(new) else [str(study) for study in table.index],
                files=file_digests(site, written) if len(new) else {},
            )
    return {**summary(log), "new": len(new)}


def reads_status(run: Run, *, latent: bool = False) -> dict[str, Any]:
    """As queue_states, and how far readers agree.

    latent: also each reader's error rates by the latent reader model, with what it assumes.
    """
    from radia.agreement import LATENT_ASSUMPTIONS, agreement, latent_truth
    from radia.read_log import READER

    states, log = queue_states(run), read_log(run.workspace)
    if log is None:
        return {**states, "agreement": []}
    independent = log[log["role"] == READER]
    agreed = agreement(independent)
    return {
        **states,
        "agreement": agreed.astype(object).where(agreed.notna(), None).to_dict("records"),
        **(
            {"latent": {"assumes": LATENT_ASSUMPTIONS, "readers": latent_truth(independent)[0].to_dict("records")}}
            if latent
            else {}
        ),
    }


def queue_states(run: Run) -> dict[str, Any]:
    """How many queued studies are in each state, how many are not settled, and who read how much."""
    from radia.read_log import status, summary

    site = run.workspace
    queue, log = read_queue(site), read_log(site)
    states = status(queue, log, readers_needed=run.settings.reads.readers)
    counts = states.groupby(["queue", "state"]).size().reset_index(name="studies")
    result: dict[str, Any] = {
        "states": {str(name): {} for name in states["queue"].unique()},
        "waiting": _waiting(run),
        "repeats": int((queue["queue"] == "repeat").sum()),
    }
    for name, state, count in counts.itertuples(index=False):
        result["states"][str(name)][str(state)] = int(count)
    if log is None:
        return {**result, "readers": {}}
    people = log.groupby(["reader", "role"])["id"].nunique().reset_index()
    readers = {f"{name} ({role})": int(count) for name, role, count in people.itertuples(index=False)}
    return {**result, **summary(log), "readers": readers}


def plan_reads(run: Run, *, finding: str, half_width: float, metric: str = "auroc") -> Plan:
    """How many evaluation reads of the snapshot's test side bring a finding's interval to ± half_width."""
    from radia.reads import plan

    side = held_out(run, current_snapshot(run))
    return plan(
        side.given,
        side.probabilities,
        finding=finding,
        half_width=half_width,
        metric=metric,
        reads=side.gold,
        seed=run.settings.seed,
    )


@dataclass(frozen=True)
class HeldOut:
    """The test side by study: given labels and probabilities (findings as columns), reads for estimates or None."""

    given: pd.DataFrame
    probabilities: pd.DataFrame
    gold: pd.DataFrame | None


def held_out(run: Run, frozen: Snapshot, probabilities: pd.DataFrame | None = None) -> HeldOut:
    """The snapshot's test side with its reads. probabilities: by study; out-of-fold ones where none are given.

    Raises SnapshotError where there is no test side, or nothing says how probable its findings are.
    """
    import pandas as pd

    site = run.workspace
    studies = test_studies(frozen)
    if probabilities is None:
        path = site.suspects / "probabilities.parquet"
        if not path.is_file():
            raise SnapshotError("no probabilities yet: run `radia suspects`, or give --labels and --probs")
        probabilities = pd.read_parquet(path).set_index("study")
    known = [study for study in studies if study in probabilities.index]
    given = frozen.labels.set_index("study").loc[known, list(FINDINGS)]
    return HeldOut(given, probabilities.loc[known, list(FINDINGS)], gold_reads(site, known))


def _validation_side(run: Run, frozen: Snapshot) -> HeldOut:
    """The validation side by study: labels as they were given before any read, and what out-of-fold models say."""
    import pandas as pd

    site, images = run.workspace, frozen.images
    probabilities = pd.read_parquet(site.suspects / "probabilities.parquet").set_index("study")
    inside = images.loc[images["split"] == "validation", "study"].unique()
    studies = [study for study in sorted(inside) if study in probabilities.index]
    given = pd.read_parquet(site.labels / "given.parquet").set_index("study")[list(FINDINGS)].reindex(studies)
    return HeldOut(given, probabilities.loc[studies, list(FINDINGS)], gold_reads(site, studies))


def gold_reads(site: Workspace, studies: list[str]) -> pd.DataFrame | None:
    """The reads of these studies that estimates may use (`radia.read_log.gold`), or None where there are none."""
    import pandas as pd

    if not site.gold_reads.is_file():
        return None
    found = pd.read_parquet(site.gold_reads)
    found = found[found["id"].isin(studies)].reset_index(drop=True)
    return found if len(found) else None


def gold_inputs(site: Workspace) -> dict[str, str]:
    """The digest of the reads that estimates use, for the inputs of steps that make some."""
    return {"reads": digests.of_file(site.gold_reads)} if site.gold_reads.is_file() else {}


def test_studies(frozen: Snapshot) -> list[str]:
    """The studies of the test side, sorted."""
    images = frozen.images
    return sorted(images.loc[images["split"] == "test", "study"].unique())


def read_log(site: Workspace) -> pd.DataFrame | None:
    """Every read so far; None while there are none."""
    import pandas as pd

    return pd.read_parquet(site.read_log) if site.read_log.is_file() else None


def read_queue(site: Workspace) -> pd.DataFrame:
    """Everything that was asked for: id, queue, sampling_probability, draw. Raises LabelError where nothing was."""
    import pandas as pd

    if not site.read_queue.is_file():
        raise LabelError("no read was asked for yet: run `radia reads queue --budget N`")
    return pd.read_parquet(site.read_queue)


def studies_of_withdrawn(run: Run) -> frozenset[str]:
    """The studies of patients who withdrew: nobody is asked to read them any more."""
    import pandas as pd

    from radia.trace import withdrawn_patients

    withdrawn = withdrawn_patients(run.ledger)
    if not withdrawn:
        return frozenset()
    tables = [pd.read_parquet(path, columns=["study", "patient"]) for path in run.workspace.manifest.glob("*.parquet")]
    return frozenset(str(study) for table in tables for study in table.loc[table["patient"].isin(withdrawn), "study"])


def close_queue_of_withdrawn(run: Run) -> int:
    """Takes the studies of patients who withdrew out of the queue; how many there were. The ledger says that it was."""
    gone, site = studies_of_withdrawn(run), run.workspace
    if not gone or not site.read_queue.is_file():
        return 0
    with _alone(site):
        queue = read_queue(site)
        mine = queue["id"].isin(gone)
        if not mine.any():
            return 0
        _write(queue[~mine].reset_index(drop=True), site.read_queue)
        run.ledger.append(
            Action.QUEUE,
            actor=run.actor,
            outputs={"queue": digests.of_file(site.read_queue)},
            parameters={"summary": {"withdrawn": int(queue.loc[mine, "id"].nunique())}, **run.tags},
            subjects=queue.loc[mine, "id"].unique(),
            files=file_digests(site, [site.read_queue]),
        )
    return int(queue.loc[mine, "id"].nunique())


def _drawn(run: Run, budget: int) -> Outcome:
    import pandas as pd

    from radia.read_log import EVALUATION, REPEAT
    from radia.reads import VALIDATION, queues

    site, frozen, settings = run.workspace, current_snapshot(run), run.settings
    side, beside = held_out(run, frozen), _validation_side(run, frozen)
    before = pd.read_parquet(site.read_queue) if site.read_queue.is_file() else None
    images = frozen.images
    gone = studies_of_withdrawn(run)  # the snapshot may be older than a withdrawal
    test, validation = (part.given[~part.given.index.isin(gone)] for part in (side, beside))
    suspected = pd.read_parquet(site.suspects / "suspects.parquet")
    drawn = queues(
        pd.concat([test, validation]),
        pd.concat([side.probabilities.loc[test.index], beside.probabilities.loc[validation.index]]),
        suspected[~suspected["id"].isin(gone)],
        budget=budget,
        test=list(test.index),
        validation=list(validation.index),
        strata=dict(zip(images["study"].astype(str), images["site"].astype(str), strict=True)),
        shares={
            EVALUATION: settings.reads.evaluation_share,
            VALIDATION: settings.reads.validation_share,
            REPEAT: settings.reads.repeat_share,
        },
        before=before,
        seed=settings.seed,
    )
    designs = [] if before is None else [pd.read_parquet(site.read_designs)]
    _write(pd.concat([*designs, drawn.design], ignore_index=True), site.read_designs)
    _write(drawn.queue if before is None else pd.concat([before, drawn.queue], ignore_index=True), site.read_queue)
    counts = {str(name): int(count) for name, count in drawn.queue["queue"].value_counts().items()}
    inputs = {"snapshot": frozen.digest, "suspects": digests.of_file(site.suspects / "suspects.parquet")}
    outputs = {"queue": digests.of_file(site.read_queue), "designs": digests.of_file(site.read_designs)}
    summary = {"queued": len(drawn.queue), "queues": counts, "draw": int(drawn.queue["draw"].max())}
    run.ledger.append(
        Action.QUEUE,
        actor=run.actor,
        inputs=inputs,
        outputs=outputs,
        parameters={"summary": summary, "budget": budget, **run.tags},
        subjects=drawn.queue["id"].unique(),
        files=file_digests(site, [site.read_queue, site.read_designs]),
    )
    return Outcome("queue", inputs, outputs, {**summary, "waiting": _waiting(run)})


def _waiting(run: Run) -> int:
    """Queued studies that readers have not settled."""
    from radia.read_log import SETTLED, status

    site = run.workspace
    if not site.read_queue.is_file():
        return 0
    states = status(read_queue(site), read_log(site), readers_needed=run.settings.reads.readers)
    return int((states["state"] != SETTLED).sum())


def _settle(run: Run, log: pd.DataFrame) -> None:
    """What the log decides: for training (every study), and for estimates (the evaluation queue, with its weights)."""
    import pandas as pd

    from radia.read_log import gold, true_labels

    site, needed = run.workspace, run.settings.reads.readers
    decided = true_labels(log, readers_needed=needed).rename(columns={"id": "study"})
    _write(_all_findings(decided, "study"), site.reads / "reads.parquet")
    known = gold(log, read_queue(site), pd.read_parquet(site.read_designs), readers_needed=needed)
    _write(_all_findings(known, "id"), site.gold_reads)


def _all_findings(labels: pd.DataFrame, key: str) -> pd.DataFrame:
    missing = {finding: float("nan") for finding in FINDINGS if finding not in labels}
    return labels.assign(**missing)[[key, *FINDINGS, "readers", "queue", "sampling_probability", "source"]]


def _pictures(site: Workspace) -> dict[str, str]:
    """Study -> the paths of its clean DICOM files below the data folder."""
    import pandas as pd

    found: dict[str, list[str]] = {}
    for outcomes in sorted(site.clean.glob("*/outcomes.parquet")):
        table = pd.read_parquet(outcomes, columns=["outcome", "study", "output"])
        kept = table[table["outcome"] == "clean"]
        for study, output in zip(kept["study"], kept["output"], strict=True):
            found.setdefault(str(study), []).append(f"{site.clean.name}/{outcomes.parent.name}/{output}")
    return {study: "; ".join(sorted(paths)) for study, paths in found.items()}


def _write(frame: pd.DataFrame, target: Path) -> None:
    with written_whole(target) as partial:
        frame.to_parquet(partial, index=False)


@contextmanager
def _alone(site: Workspace) -> Iterator[None]:
    """Nobody else on this machine changes queue or log meanwhile."""
    site.reads.mkdir(parents=True, exist_ok=True)
    with (site.reads / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
