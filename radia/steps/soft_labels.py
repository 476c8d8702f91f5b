"""Training targets of the policy `soft`: what a label says, as the probability that the finding is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from radia import digests
from radia.errors import LabelError
from radia.findings import FINDINGS, UncertaintyPolicy
from radia.steps.run import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.label_probability import LabelProbabilities

    FloatArray = NDArray[np.float64]


def soft_findings(run: Run) -> list[str]:
    """The findings whose policy is `soft`."""
    settings = run.settings.labels
    policies = {finding: settings.uncertain_by_finding.get(finding, settings.uncertain) for finding in FINDINGS}
    return [finding for finding in FINDINGS if policies[finding] is UncertaintyPolicy.SOFT]


def soft_inputs(run: Run) -> dict[str, str]:
    """The digest of the probabilities that the policy rests on, where it is asked for and they come from a file."""
    named = run.settings.labels.probabilities
    if not named or not soft_findings(run):
        return {}
    path = run.workspace.root / named
    if not path.is_file():
        raise LabelError(f"labels.probabilities names {named}, which is not there: run `radia labels probabilities`")
    return {"label probabilities": digests.of_file(path)}


def soft_targets_of(run: Run, given: pd.DataFrame, reads: pd.DataFrame | None) -> pd.DataFrame:
    """P(present) of the labels `given` (findings, indexed by study), for the findings whose policy is `soft`.

    1 and 0 where a study was read. From the file that params.yaml names, or learnt from `reads` (indexed by study, with
    `sampling_probability`; those without one were chosen by a model and teach nothing here). Raises LabelError.
    """
    import numpy as np
    import pandas as pd

    wanted = soft_findings(run)
    agreement = run.settings.labels.agreement
    left_out = [finding in agreement.leave_out if agreement else False for finding in wanted]
    values = np.where(left_out, np.nan, given[wanted].to_numpy(dtype=np.float64))
    read = np.full_like(values, np.nan)
    sampling = np.zeros(len(given))
    if reads is not None:
        rows = reads.reindex(given.index)
        read = rows[wanted].to_numpy(dtype=np.float64)
        if "sampling_probability" in rows:
            sampling = rows["sampling_probability"].fillna(0.0).to_numpy(dtype=np.float64)
    soft = _probabilities(run, wanted, values, read, sampling).of(values)
    return pd.DataFrame(np.where(np.isnan(read), soft, read), index=given.index, columns=wanted)


def _probabilities(
    run: Run, wanted: list[str], values: FloatArray, read: FloatArray, sampling: FloatArray
) -> LabelProbabilities:
    from radia.label_probability import LabelProbabilities, label_probabilities

    named = run.settings.labels.probabilities
    if not named:
        chosen = sampling > 0
        return label_probabilities(values[chosen], read[chosen], findings=wanted, sampling=sampling[chosen])
    path = run.workspace.root / named
    try:
        return LabelProbabilities.from_json(json.loads(path.read_text())["probabilities"], wanted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelError(f"{named} is not what `radia labels probabilities --out` writes, for every finding") from error
