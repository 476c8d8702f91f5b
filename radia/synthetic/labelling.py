"""What the reports say of what is there: given labels with known, realistic errors.

A report leaves findings out (the question was another), takes one for its neighbour, overcalls, or hedges.
An injected error is a given 1 that is truly absent, or a given 0 or blank that is truly present. A hedge (-1) is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN, position

BLANK = float("nan")

MISSED = 0.13
"""Share of the findings present of which a report says nothing, or denies them."""
SWAPPED = 0.05
"""Share of the findings present that a report takes for a neighbour."""
OVERCALLED = 0.018
"""Share of the findings absent that a report states."""
HEDGED_PRESENT, HEDGED_ABSENT = 0.07, 0.008

HARDNESS: dict[str, float] = {
    "Pleural Other": 1.3,
    "Fracture": 1.5,
    "Lung Lesion": 1.2,
    "Enlarged Cardiomediastinum": 1.4,
    "Atelectasis": 1.2,
    "Pneumothorax": 0.7,
    "Support Devices": 1.0,
    "Edema": 0.9,
    "Cardiomegaly": 0.9,
}
"""How much more often than usual reports leave a finding out."""

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Cardiomegaly": ("Enlarged Cardiomediastinum",),
    "Lung Opacity": ("Pneumonia", "Edema", "Consolidation"),
    "Lung Lesion": ("Lung Opacity", "Consolidation"),
    "Edema": ("Pneumonia", "Lung Opacity"),
    "Consolidation": ("Atelectasis", "Pneumonia", "Lung Opacity"),
    "Pneumonia": ("Consolidation", "Lung Opacity", "Atelectasis"),
    "Atelectasis": ("Consolidation", "Pneumonia"),
    "Pneumothorax": ("Pleural Other",),
    "Pleural Effusion": ("Pleural Other", "Atelectasis"),
    "Pleural Other": ("Pleural Effusion",),
}
"""What each finding is taken for."""

NEGATIVES: dict[str, float] = {
    "Pleural Effusion": 0.7,
    "Pneumothorax": 0.65,
    "Consolidation": 0.5,
    "Cardiomegaly": 0.5,
    "Enlarged Cardiomediastinum": 0.35,
    "Edema": 0.3,
    "Pneumonia": 0.15,
    "Lung Lesion": 0.15,
    "Fracture": 0.12,
    "Lung Opacity": 0.12,
    "Atelectasis": 0.08,
    "Pleural Other": 0.04,
    "Support Devices": 0.03,
}
"""How often a report denies what is absent, instead of passing over it."""


@dataclass(frozen=True)
class GivenLabels:
    """values: [14] of 1, 0, -1 and NaN; errors: kind of error per finding (missed, swapped, overcalled, follows)."""

    values: NDArray[np.float64]
    errors: dict[str, str]


def given_labels(truth: NDArray[np.float64], severity: dict[str, float], rng: np.random.Generator) -> GivenLabels:
    """The labels that one report gives. truth: [14] of 1 and 0; severity: 0 .. 1 of each finding present."""
    named = [finding for finding in FINDINGS if finding != "No Finding"]
    values = np.full(len(FINDINGS), BLANK)
    errors: dict[str, str] = {}
    for finding in named:
        present = truth[position(finding)] == PRESENT
        draw, said = rng.random(), rng.random()
        denied = ABSENT if said < NEGATIVES[finding] else BLANK
        if not present:
            hedge, call = HEDGED_ABSENT, HEDGED_ABSENT + OVERCALLED
            values[position(finding)] = UNCERTAIN if draw < hedge else PRESENT if draw < call else denied
            if hedge <= draw < call:
                errors[finding] = "overcalled"
            continue
        plain = severity.get(finding, 0.5)
        missed = MISSED * HARDNESS.get(finding, 1.0) * (1.15 - 0.3 * plain)
        hedged = HEDGED_PRESENT * (1.6 - 1.2 * plain)
        swapped = SWAPPED if finding in NEIGHBOURS else 0.0
        values[position(finding)] = PRESENT
        if draw < missed:
            values[position(finding)], errors[finding] = denied, "missed"
        elif draw < missed + hedged:
            values[position(finding)] = UNCERTAIN
        elif draw < missed + hedged + swapped:
            values[position(finding)], errors[finding] = BLANK, "swapped"
    for finding in [name for name, kind in errors.items() if kind == "swapped"]:
        taken_for = str(rng.choice(NEIGHBOURS[finding]))
        if truth[position(taken_for)] == PRESENT:
            errors[finding] = "missed"
        else:
            values[position(taken_for)], errors[taken_for] = PRESENT, "swapped for"
    _no_finding(truth, values, errors)
    return GivenLabels(values, errors)


def _no_finding(truth: NDArray[np.float64], values: NDArray[np.float64], errors: dict[str, str]) -> None:
    """No Finding is 1 or blank, as the report's other labels have it; it may follow them into error."""
    others = [position(name) for name in FINDINGS if name not in ("No Finding", "Support Devices")]
    said = bool(((values[others] == PRESENT) | (values[others] == UNCERTAIN)).any())
    column = position("No Finding")
    values[column] = BLANK if said else PRESENT
    if (values[column] == PRESENT) != (truth[column] == PRESENT):
        errors["No Finding"] = "follows"
