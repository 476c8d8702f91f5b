"""`radia demo`: the whole main job on the embedded hospital, and how its results compare with what is known there.

A real hospital does not know its true labels; this one does, so the demonstration can say how many suspects are truly
wrong and what the models' true performance is. The job itself sees none of it but the boxes of findings on held-out
images, against which it holds heat maps.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radia import summary
from radia.findings import FINDINGS
from radia.settings import demo_workspace
from radia.steps import Progress, Run, current_snapshot, open_run
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd

    from radia.synthetic.readers import SimulatedReader

TOP = 0.15
"""The share of all labels, most suspect first, among which the injected errors are counted."""


def run(orchestrate: Callable[..., dict[str, Any]], *, studies: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Writes the hospital where it is not there yet, runs the job on it and compares the result with the truth."""
    site = demo_workspace()
    site.root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(files("radia.synthetic") / "params.yaml"), site.root / "params.yaml")
    _make_key(site, seed)
    hospital = _hospital(site, studies, seed, progress)
    inputs = {"inbox": hospital / "inbox", "labels": hospital / "labels.csv", "progress": progress}
    if not site.read_log.is_file():
        orchestrate(**inputs, until="read_queue")
    read_blind(open_run(progress=progress), hospital, seed=seed)
    orchestrate(**inputs)
    return compared_with_truth(open_run(progress=progress), hospital)


def read_blind(run: Run, hospital: Path, *, seed: int) -> None:
    """Simulated readers read the first queue: two blind, an adjudicator where they differ, some of it a second time.

    Later queues stay open, for people to try. What was read already is not read again.
    """
    from radia.read_log import ADJUDICATOR, AGAIN, READER
    from radia.synthetic import readers

    for reader in readers.READERS:
        _simulated(run, hospital, reader, READER, seed)
    _simulated(run, hospital, readers.ADJUDICATOR, ADJUDICATOR, seed)
    for reader in readers.READERS:
        _simulated(run, hospital, reader, AGAIN, seed)


def compared_with_truth(run: Run, hospital: Path) -> dict[str, Any]:
    """The run's summary, and beside it what only the embedded hospital knows."""
    truth = true_labels(run.workspace, hospital)
    return {
        **summary.run_summary(run),
        "known": {"suspects": _suspects_found(run, truth), "held_out": _held_out(run, truth)},
    }


def told(result: dict[str, Any]) -> str:
    """The summary in words, with the truth beside it."""
    suspects, held_out = result["known"]["suspects"], result["known"]["held_out"]
    site = demo_workspace()
    lines = summary.told(result, site).splitlines()
    known = [
        f"Known here {suspects['found']} of {suspects['wrong']} wrong labels are among the first {TOP:.0%} of suspects "
        f"({suspects['recall']:.0%})",
        f"Known here {held_out['sentence']}",
    ]
    if errors := held_out["auroc_error"]:
        known.append(
            f"Known here the candidate's AUROC is off by {errors['given labels']:.3f} a finding where the given labels "
            f"are believed, by {errors['noise-aware']:.3f} with the reads"
        )
    return "\n".join([*lines[:-2], *known, *lines[-2:]])


def true_labels(site: Workspace, hospital: Path) -> pd.DataFrame:
    """True labels by pseudonymous study, for the studies of the archive: the demonstration holds the key."""
    import pandas as pd

    from radia.dicom.pseudonyms import Pseudonymizer, load_key
    from radia.manifest import load

    pseudonymizer = Pseudonymizer(load_key(site.key_file))
    studies = json.loads((hospital / "truth.json").read_text())["studies"]
    truth = {number: study["true"] for number, study in studies.items()}
    table = pd.DataFrame.from_dict(truth, orient="index", columns=list(FINDINGS)).astype(float)
    table.index = pd.Index([pseudonymizer.accession(number) for number in table.index], name="accession")
    pairs = load(site.manifest)[["accession", "study"]].drop_duplicates("study").set_index("accession")["study"]
    known = table.loc[table.index.isin(pairs.index)]
    return known.set_axis(pd.Index(pairs.reindex(known.index), name="study"), axis=0)


def _simulated(run: Run, hospital: Path, reader: SimulatedReader, role: str, seed: int) -> None:
    """One simulated person reads what waits for them in the first queue."""
    from radia.read_log import ADJUDICATOR, AGAIN, SIMULATED, disagreements, open_for
    from radia.steps import add_reads
    from radia.steps.reads import read_log, read_queue

    log, needed = read_log(run.workspace), run.settings.reads.readers
    queue = read_queue(run.workspace)
    waiting = open_for(reader.name, queue[queue["draw"] == 1], log, role=role, readers_needed=needed)
    truth = true_labels(run.workspace, hospital)
    sheet = reader.read(truth.loc[truth.index.isin(waiting["id"])], seed=seed, look=int(role == AGAIN))
    if role == ADJUDICATOR and log is not None:
        disputed = disagreements(log, readers_needed=needed)
        open_cells = [[finding in disputed.get(study, "").split("; ") for finding in sheet] for study in sheet.index]
        sheet = sheet.where(np.array(open_cells, dtype=bool).reshape(sheet.shape))
    if len(sheet):
        add_reads(run, sheet.rename_axis("id"), reader=reader.name, role=role, source=SIMULATED)


def _make_key(site: Workspace, seed: int) -> None:
    """A key that follows from the seed, so that every demonstration has the same split: its patients are nobody."""
    if not site.key_file.exists():
        site.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_whole(site.key_file) as partial:
            partial.touch(mode=0o600)
            partial.write_text(hashlib.sha256(f"radia demo {seed}".encode()).hexdigest() + "\n")


def _hospital(site: Workspace, studies: int, seed: int, progress: Progress) -> Path:
    from radia import __version__
    from radia.synthetic.hospital import write_hospital

    folder = site.root / "hospital"
    recipe = {"studies": studies, "seed": seed, "radia": __version__}
    label = folder / "recipe.json"
    if label.is_file() and json.loads(label.read_text()) == recipe:
        return folder
    with written_whole(folder) as partial:
        write_hospital(
            partial, studies=studies, seed=seed, progress=lambda done, total: progress("hospital", done, total)
        )
        (partial / "recipe.json").write_text(json.dumps(recipe))
    return folder


def _suspects_found(run: Run, truth: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    ranked = pd.read_parquet(run.workspace.suspects / "suspects.parquet")
    true = truth.rename_axis("id").reset_index().melt("id", var_name="finding", value_name="true")
    ranked = ranked.merge(true, on=["id", "finding"])
    wrong = (ranked["given"] != -1) & (ranked["given"] != ranked["true"])
    first = ranked["rank"] <= TOP * len(ranked)
    found, total = int((wrong & first).sum()), int(wrong.sum())
    return {"labels": len(ranked), "wrong": total, "found": found, "recall": found / total if total else None}


def _held_out(run: Run, truth: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    from radia.evaluate import evaluate_candidate, headline
    from radia.model import read_checkpoint

    predictions = pd.read_parquet(run.workspace.evaluation / "predictions.parquet").set_index("study")
    images = current_snapshot(run).images.set_index("image").loc[predictions["image"]]
    result = evaluate_candidate(
        truth.loc[predictions.index].to_numpy(),
        predictions[[f"base/{finding}" for finding in FINDINGS]].to_numpy(),
        predictions[[f"candidate/{finding}" for finding in FINDINGS]].to_numpy(),
        base_thresholds=read_checkpoint(run.workspace.models / "base").thresholds,
        candidate_thresholds=read_checkpoint(run.workspace.models / "candidate").thresholds,
        patients=images["patient"].to_numpy(),
        groups=images[["site", "sex"]].reset_index(drop=True),
        settings=run.settings.evaluate,
        seed=run.settings.seed,
    )
    return {**headline(result), "auroc_error": _auroc_errors(run, result)}


def _auroc_errors(run: Run, on_truth: dict[str, Any]) -> dict[str, float]:
    """How far the candidate's AUROC by each way of estimating lies from the true one: the mean over findings.

    Empty without reads. Findings count of which all three exist.
    """
    evaluation = json.loads((run.workspace.evaluation / "metrics.json").read_text())
    estimates = evaluation["estimates"]
    if not estimates:
        return {}
    ways = {
        "given labels": evaluation["models"]["candidate"]["findings"],
        "noise-aware": estimates["candidate"]["findings"],
    }
    true = on_truth["models"]["candidate"]["findings"]
    gaps: dict[str, list[float]] = {way: [] for way in ways}
    for finding, entry in true.items():
        values = [table[finding]["auroc"]["value"] for table in ways.values()]
        if "why" not in entry and all(value is not None for value in values):
            for way, value in zip(ways, values, strict=True):
                gaps[way].append(abs(value - entry["auroc"]["value"]))
    return {way: float(np.mean(errors)) for way, errors in gaps.items() if errors}
