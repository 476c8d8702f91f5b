"""Which groups of labels the noise page tells apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from radia.findings import FINDINGS
from radia.labels import cue_column, origin_column
from radia.settings import Settings
from radia.steps import Run
from radia.steps.noise import _groups
from radia.steps.reads import HeldOut
from radia.workspace import Workspace

STUDIES = [f"S{number}" for number in range(8)]
FROZEN = SimpleNamespace(images=pd.DataFrame({"study": STUDIES, "site": ["A"] * 5 + ["B"] * 3}))


def _site(root: Path, *, evidence: bool) -> tuple[Run, HeldOut]:
    """Eight studies; all labels from reports but the Edema of S0, which a table gave."""
    labels = Workspace(root).labels
    labels.mkdir(parents=True)
    given = pd.DataFrame(0.0, index=pd.Index(STUDIES, name="study"), columns=list(FINDINGS))
    origins = {origin_column(finding): "report" for finding in FINDINGS}
    table = given.assign(**origins)
    table.loc["S0", origin_column("Edema")] = "given"
    table.reset_index().to_parquet(labels / "given.parquet")
    if evidence:
        cues = {cue_column(finding): "negation ahead" for finding in FINDINGS}
        told = pd.DataFrame({"study": STUDIES, "language": ["fr"] * 6 + ["en"] * 2, **cues})
        told.to_parquet(labels / "evidence.parquet")
    return Run(Workspace(root), Settings(), "test"), HeldOut(given, given, None)


def test_labels_of_a_table_have_sites_alone(tmp_path: Path) -> None:
    run, side = _site(tmp_path, evidence=False)
    groups = _groups(run, FROZEN, side)  # type: ignore[arg-type]
    assert list(groups) == ["site"]
    assert groups["site"]["A"].tolist() == [True] * 5 + [False] * 3


def test_labels_of_reports_have_a_language_and_cues_too(tmp_path: Path) -> None:
    run, side = _site(tmp_path, evidence=True)
    groups = _groups(run, FROZEN, side)  # type: ignore[arg-type]
    assert groups["language"]["en"].tolist() == [False] * 6 + [True] * 2
    cue = groups["cue"]["negation ahead"]
    assert cue.shape == (8, 14)
    assert not cue[0, FINDINGS.index("Edema")]
    assert int(cue.sum()) == 8 * 14 - 1


def test_a_cue_that_gave_few_labels_is_not_listed(tmp_path: Path) -> None:
    run, side = _site(tmp_path, evidence=True)
    assert "given in a table" not in _groups(run, FROZEN, side)["cue"]  # type: ignore[arg-type]
    assert all(np.asarray(mask).any() for mask in _groups(run, FROZEN, side)["cue"].values())  # type: ignore[arg-type]
