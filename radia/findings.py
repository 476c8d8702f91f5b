"""The 14 observations of CheXpert, the values of a label, and what an uncertain one is taken for in training.

Nothing here reads files. Order and names follow Irvin et al., CheXpert (AAAI 2019), table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from radia.errors import UnknownFinding

FINDINGS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
COMPETITION_5: tuple[str, ...] = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")

ABOVE: dict[str, str] = {
    "Cardiomegaly": "Enlarged Cardiomediastinum",
    "Lung Lesion": "Lung Opacity",
    "Edema": "Lung Opacity",
    "Consolidation": "Lung Opacity",
    "Pneumonia": "Consolidation",
    "Atelectasis": "Lung Opacity",
}
"""What each finding is a kind of: CheXpert's tree of labels (Irvin et al. 2019, figure 1)."""

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0
"""A finding that a report does not mention is blank: NaN in arrays and frames, an empty field in CSV."""


class UncertaintyPolicy(StrEnum):
    """What a label of -1 becomes in training (Irvin et al. 2019, section 3).

    SOFT goes further: every label of the finding becomes the probability that reads give it (label_probability.py).
    SMOOTHED_ONES and SMOOTHED_ZEROS draw a target close to one or to zero (Pham et al. 2019, section 3.4).
    """

    IGNORE = "ignore"
    ZEROS = "zeros"
    ONES = "ones"
    SOFT = "soft"
    SMOOTHED_ONES = "smoothed-ones"
    SMOOTHED_ZEROS = "smoothed-zeros"


_SMOOTHED = {UncertaintyPolicy.SMOOTHED_ONES: (0.55, 0.85), UncertaintyPolicy.SMOOTHED_ZEROS: (0.0, 0.3)}
"""Between what an uncertain label's target is drawn."""


def position(finding: str) -> int:
    """The column of a finding. Raises UnknownFinding."""
    if finding not in FINDINGS:
        raise UnknownFinding(finding)
    return FINDINGS.index(finding)


def ancestors(finding: str) -> tuple[str, ...]:
    """What stands above a finding in the tree, nearest first."""
    above = ABOVE.get(finding)
    return () if above is None else (above, *ancestors(above))


def training_targets(
    labels: NDArray[np.float64],
    policies: Mapping[str, UncertaintyPolicy],
    *,
    default: UncertaintyPolicy = UncertaintyPolicy.IGNORE,
    blank_is_absent: bool = True,
    findings: tuple[str, ...] = FINDINGS,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets in [0, 1] and weights (1 counts, 0 is left out of the loss), both [n, findings].

    labels: [n, findings] of 1, 0, -1 and NaN. Values strictly between 0 and 1 are soft labels and stay. SOFT is as
    IGNORE here: the probabilities are put in where training happens, and nowhere is a model judged by them.
    """
    targets = labels.astype(np.float32, copy=True)
    weights = np.ones_like(targets)
    blank = np.isnan(targets)
    targets[blank] = 0.0
    if not blank_is_absent:
        weights[blank] = 0.0
    for column, finding in enumerate(findings):
        uncertain = labels[:, column] == UNCERTAIN
        policy = policies.get(finding, default)
        targets[uncertain, column] = 1.0 if policy is UncertaintyPolicy.ONES else 0.0
        if policy in _SMOOTHED:
            draws = np.random.default_rng([4, column]).uniform(*_SMOOTHED[policy], size=len(labels))
            targets[uncertain, column] = draws[uncertain]
        if policy in (UncertaintyPolicy.IGNORE, UncertaintyPolicy.SOFT):
            weights[uncertain, column] = 0.0
    return targets, weights
