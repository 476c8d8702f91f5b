"""Epochs judged by blind reads: where given labels are noisy, reads tell better which epoch is best.

What an epoch is worth is what its AUROCs would be if all validation studies had been read (radia/estimate.py): the
truth of the unread ones is inferred from the scores, the given labels and the reads, which were chosen with known
probabilities. A finding that reads cannot speak of (none present, or none absent) keeps the given labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia import digests
from radia.estimate import estimate, noisy_set
from radia.fit.validation import Judge

Floats = NDArray[np.float64]
DRAWS = 200
LEAST_READS = 10
"""Fewer say too little for a choice between epochs."""
GIVEN, READ, SAMPLING = "given/", "read/", "sampling_probability"


@dataclass(frozen=True)
class _ByReads:
    """Called with probabilities [n, findings] of the images of `studies`; a study's are the mean of its images."""

    findings: tuple[str, ...]
    studies: tuple[str, ...]
    given: pd.DataFrame
    reads: pd.DataFrame

    def __call__(self, probabilities: Floats) -> Floats:
        by_image = pd.DataFrame(probabilities, columns=list(self.findings))
        scores = by_image.groupby(np.array(self.studies)).mean()
        found = estimate(noisy_set(self.given, scores, self.reads), draws=DRAWS)
        draws = found.draws["auroc"]
        known = np.isfinite(draws).mean(axis=0) >= 0.5
        values = {
            f: draws[:, k][np.isfinite(draws[:, k])].mean() for k, f in enumerate(found.noisy.findings) if known[k]
        }
        return np.array([values.get(finding, np.nan) for finding in self.findings])


def judge_by_reads(table: pd.DataFrame, studies: Sequence[str] | NDArray[Any], findings: tuple[str, ...]) -> Judge:
    """What judges epochs by the reads of a table (`reads_and_labels`). studies: [n], of each validation image."""
    given, reads = _parts(table)
    name = f"{len(reads)} blind reads of {len(given)} validation studies (noise-aware AUROC)"
    of_image = tuple(str(study) for study in studies)
    key = digests.of_json([table.to_csv(index=False), *of_image])
    return Judge(_ByReads(findings, of_image, given, reads), name, key)


def reads_and_labels(given: pd.DataFrame, reads: pd.DataFrame) -> pd.DataFrame | None:
    """Everything that judging by reads rests on, one row a validation study; None where too few were read.

    given: labels before any read, by study, with the findings as columns. reads: of some of these studies, as
    `radia.read_log.gold` gives them. Columns: study, `given/<finding>`, `read/<finding>`, sampling_probability.
    """
    if len(reads) < LEAST_READS:
        return None
    said = reads.set_index("id")[[*given.columns, SAMPLING]].reindex(given.index)
    columns = given.sort_index().add_prefix(GIVEN).join(said[list(given.columns)].add_prefix(READ))
    return columns.join(said[SAMPLING]).rename_axis("study").reset_index()


def _parts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    by_study = table.set_index("study")
    given, read = (
        by_study[[name for name in by_study if str(name).startswith(prefix)]].rename(
            columns=lambda c: c.partition("/")[2]
        )
        for prefix in (GIVEN, READ)
    )
    known = by_study[SAMPLING].notna()
    return given, read[known].join(by_study.loc[known, SAMPLING]).rename_axis("id").reset_index()
