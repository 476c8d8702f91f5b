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

from radia import summary
from radia.findings import FINDINGS
from radia.settings import demo_workspace
from radia.steps import Progress, Run, current_snapshot, open_run
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd

TOP = 0.15
"""The share of all labels, most suspect first, among which the injected errors are counted."""


def run(orchestrate: Callable[..., dict[str, Any]], *, studies: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Writes the hospital where it is not there yet, runs the job on it and compares the result with the truth."""
    site = demo_workspace()
    site.root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(files("radia.synthetic") / "params.yaml"), site.root / "params.yaml")
    _make_key(site, seed)
    hospital = _hospital(site, studies, seed, progress)
    orchestrate(inbox=hospital / "inbox", labels=hospital / "labels.csv", progress=progress)
    return compared_with_truth(open_run(progress=progress), hospital)


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
    return headline(result)
