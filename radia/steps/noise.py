"""The step that says how noisy the test side's labels are: figures, page, and what an asset check looks at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.findings import ABSENT, FINDINGS, PRESENT
from radia.steps.data import current_snapshot, label_inputs
from radia.steps.reads import HeldOut, gold_inputs, held_out, queue_states, read_log
from radia.steps.run import Outcome, Run, once
from radia.workspace import written_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.evaluate import Picture
    from radia.snapshot import Snapshot

EXAMPLES = 9
"""Overruled labels shown with their picture."""
MIN_GROUP = 5
"""Cues that gave fewer labels on the test side are not listed."""


def noise(run: Run) -> Outcome:
    """Noise rates of the test side's labels, agreement of readers, what more reads would give: noise.json, noise.html.

    Lies in the evaluation's folder and takes the candidate's probabilities from there. Raises SnapshotError.
    """
    from radia.noise_page import sentence, write_noise

    site, frozen = run.workspace, current_snapshot(run)
    folder = site.evaluation
    target = folder / "noise.json"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        found = _measured(run, frozen)
        with written_whole(target) as partial:
            partial.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        write_noise(folder, found, pictures=_overruled(run, frozen))
        rate = found["labels"]["wrong"] if found["read"] else {"value": None, "low": None, "high": None}
        return {"noise": digests.of_file(target)}, {
            "read": found["read"],
            "studies": found["studies"],
            "wrong": rate,
            "noisiest": found["noisiest"],
            "above_bound": bool(found["noisiest"]) or (rate["value"] or 0.0) > found["bound"],
            "sentence": sentence(found),
        }

    inputs = {
        "snapshot": frozen.digest,
        "metrics": digests.of_file(folder / "metrics.json"),
        "suspects": digests.of_file(site.suspects / "suspects.parquet"),
        "settings": run.settings.reads.digest(),
        **label_inputs(site),
        **gold_inputs(site),
        **({"read log": digests.of_file(site.read_log)} if site.read_log.is_file() else {}),
        **({"read queue": digests.of_file(site.read_queue)} if site.read_queue.is_file() else {}),
    }
    return once(run, "noise", inputs=inputs, produces=[target, folder / "noise.html"], work=work)


def _measured(run: Run, frozen: Snapshot) -> dict[str, Any]:
    from radia.noise import label_noise, noisiest, reader_agreement
    from radia.read_log import SIMULATED, decide
    from radia.reads import power

    site, settings = run.workspace, run.settings
    side = held_out(run, frozen, _candidate_probabilities(run))
    log = read_log(site)
    found: dict[str, Any] = {"read": 0, "studies": len(side.given), "noisiest": []}
    if side.gold is not None:
        groups = _groups(run, frozen, side)
        found = label_noise(side.given, side.probabilities, side.gold, groups=groups, seed=settings.seed)
        found["noisiest"] = noisiest(found, settings.reads.max_noise_rate)
    curves = power(side.given, side.probabilities, reads=side.gold, seed=settings.seed)
    found |= {
        "bound": settings.reads.max_noise_rate,
        "suspected": _suspected(run, list(side.given.index)),
        "power": {
            finding: [[budget, width if width < 1 else None] for budget, width in curve]
            for finding, curve in curves.items()
        },
        "queue": queue_states(run) if site.read_queue.is_file() else {},
    }
    if log is not None:
        cells = decide(log[log["queue"] == "evaluation"], readers_needed=settings.reads.readers)
        found |= {
            "agreement": reader_agreement(log),
            "simulated": bool((log["source"] == SIMULATED).any()),
            "undecided": int(cells["open"].sum()),
        }
    return found


def _candidate_probabilities(run: Run) -> pd.DataFrame:
    """Of the test side, by study."""
    import pandas as pd

    table = pd.read_parquet(run.workspace.evaluation / "predictions.parquet").set_index("study")
    by_study = table[[f"candidate/{finding}" for finding in FINDINGS]].astype(float).groupby(level=0).mean()
    return by_study.set_axis(list(FINDINGS), axis=1)


def _groups(run: Run, frozen: Snapshot, side: HeldOut) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Sites, and, where labels came from reports, the reports' languages and the cues that gave each label."""
    import pandas as pd

    from radia.labels import REPORT, cue_column, origin_column

    studies = side.given.index
    site_of = frozen.images.drop_duplicates("study").set_index("study")["site"].reindex(studies)
    groups = {"site": {str(name): (site_of == name).to_numpy() for name in sorted(site_of.unique())}}
    path = run.workspace.labels / "evidence.parquet"
    if not path.is_file():
        return groups
    told = pd.read_parquet(path).set_index("study").reindex(studies)
    given = pd.read_parquet(run.workspace.labels / "given.parquet").set_index("study").reindex(studies)
    from_table = given[[origin_column(finding) for finding in FINDINGS]].isin([REPORT]).to_numpy() | (
        given[list(FINDINGS)].isna().to_numpy()
    )
    cues = told[[cue_column(finding) for finding in FINDINGS]].fillna("not known").to_numpy().astype(str)
    cues[~from_table] = "given in a table"
    groups["language"] = {
        str(name): (told["language"] == name).to_numpy() for name in sorted(told["language"].dropna().unique())
    }
    by_size = pd.Series(cues.ravel()).value_counts()
    groups["cue"] = {str(cue): cues == cue for cue in by_size.index[by_size >= MIN_GROUP]}
    return groups


def _suspected(run: Run, studies: list[str]) -> dict[str, float]:
    """The mean probability of being wrong of each finding's labels on the test side, by the suspects."""
    import pandas as pd

    ranked = pd.read_parquet(run.workspace.suspects / "suspects.parquet")
    mean = ranked[ranked["id"].isin(studies)].groupby("finding")["probability"].mean()
    return {str(finding): float(mean[finding]) for finding in FINDINGS if finding in mean.index}


def _overruled(run: Run, frozen: Snapshot) -> list[Picture]:
    """Labels that readers decided otherwise, each with its picture; one of each finding before a second of any."""
    import pandas as pd

    from radia.evaluate import Picture
    from radia.images import ImageStore
    from radia.noise import overruled

    path = run.workspace.reads / "reads.parquet"
    if not path.is_file():
        return []
    given = pd.read_parquet(run.workspace.labels / "given.parquet").set_index("study")[list(FINDINGS)]
    images = frozen.images.drop_duplicates("study")
    image_of = dict(zip(images["study"].astype(str), images["image"].astype(str), strict=True))
    wrong = overruled(given[given.index.isin(list(image_of))], pd.read_parquet(path).set_index("study"))
    if wrong.empty:
        return []
    shown = wrong.drop_duplicates("study").head(EXAMPLES)
    pixels = ImageStore(run.workspace.images).read([image_of[str(study)] for study in shown["study"]])
    captions = [
        f"{finding}: given {_word(said)}, read {_word(read)} by {readers} reader{'s' if readers > 1 else ''}"
        for finding, said, read, readers in zip(
            shown["finding"], shown["given"], shown["read"], shown["readers"].astype(int), strict=True
        )
    ]
    return [Picture(caption, image) for caption, image in zip(captions, pixels, strict=True)]


def _word(value: float) -> str:
    return {PRESENT: "present", ABSENT: "absent"}.get(value, "blank")
