"""The findings, and what uncertain and blank labels become in training."""

from __future__ import annotations

import numpy as np
import pytest

from radia.errors import UnknownFinding
from radia.findings import COMPETITION_5, FINDINGS, UncertaintyPolicy, position, training_targets

POLICIES = {"Edema": UncertaintyPolicy.ONES, "Fracture": UncertaintyPolicy.ZEROS}


def one_row(**values: float) -> np.ndarray:
    row = np.full((1, len(FINDINGS)), np.nan)
    for name, value in values.items():
        row[0, position(name.replace("_", " "))] = value
    return row


def test_there_are_14_and_the_competitions_5_are_among_them() -> None:
    assert len(set(FINDINGS)) == 14
    assert set(COMPETITION_5) < set(FINDINGS)


def test_an_unknown_finding_is_named() -> None:
    with pytest.raises(UnknownFinding, match="Oedema"):
        position("Oedema")


@pytest.mark.parametrize(
    ("finding", "target", "weight"),
    [("Edema", 1.0, 1.0), ("Fracture", 0.0, 1.0), ("Pneumonia", 0.0, 0.0)],
    ids=["ones", "zeros", "ignore by default"],
)
def test_uncertain_labels_follow_the_findings_policy(finding: str, target: float, weight: float) -> None:
    targets, weights = training_targets(one_row(**{finding.replace(" ", "_"): -1.0}), POLICIES)
    assert targets[0, position(finding)] == target
    assert weights[0, position(finding)] == weight


def test_a_blank_is_absent_or_left_out() -> None:
    blank = one_row()
    assert training_targets(blank, {})[1].all()
    targets, weights = training_targets(blank, {}, blank_is_absent=False)
    assert not targets.any()
    assert not weights.any()


def test_soft_labels_stay_and_the_given_ones_are_not_changed() -> None:
    given = one_row(Edema=0.3, Fracture=-1.0)
    before = given.copy()
    targets, _ = training_targets(given, POLICIES)
    assert targets[0, position("Edema")] == pytest.approx(0.3)
    np.testing.assert_array_equal(given, before)
