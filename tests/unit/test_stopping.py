"""Epochs judged by blind reads where given labels are noisy."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from radia.errors import BadLabelValue
from radia.fit.reads import judge_by_reads, reads_and_labels
from radia.fit.validation import Validation
from radia.metrics import auroc
from radia.model import Preprocessing, build

FEW = ("Edema", "Pneumothorax", "Fracture")
CHANCE = np.random.default_rng(0)
TRUTH = (CHANCE.random((240, 3)) < 0.4).astype(float)
TRUTH[:, 2] = 0
STUDIES = np.array([f"S{number:03d}" for number in range(240)])
GIVEN = TRUTH.copy()
GIVEN[:, 0] = (CHANCE.random(240) < 0.4).astype(float)  # Edema's labels say nothing of the truth


def scores_of(quality: float, wrong: float) -> np.ndarray:  # type: ignore[type-arg]
    """Scores of the truth with some noise, Edema's drawn towards its given labels instead."""
    chance = np.random.default_rng(1)
    score = TRUTH + chance.normal(0, 1 / quality, TRUTH.shape)
    score[:, 0] = (1 - wrong) * score[:, 0] + wrong * GIVEN[:, 0]
    return 1 / (1 + np.exp(-score))


def table_of(count: int = 120, **more: object) -> pd.DataFrame | None:
    rows = np.arange(0, 240, 240 // count)
    reads = pd.DataFrame(TRUTH[rows], columns=list(FEW)).assign(
        id=STUDIES[rows], sampling_probability=count / 240, **more
    )
    return reads_and_labels(pd.DataFrame(GIVEN, index=STUDIES, columns=list(FEW)), reads)


def judge(count: int = 120):  # type: ignore[no-untyped-def]
    table = table_of(count)
    assert table is not None
    return judge_by_reads(table, STUDIES, FEW)


def test_reads_tell_the_epoch_that_learnt_the_truth_from_the_one_that_learnt_the_noise() -> None:
    right, noisy = scores_of(1.5, wrong=0.0), scores_of(1.5, wrong=0.9)
    assert auroc(GIVEN[:, 0], noisy[:, 0]) > auroc(GIVEN[:, 0], right[:, 0]) + 0.2
    told = judge()
    assert told.aurocs(right)[0] > told.aurocs(noisy)[0] + 0.1


def test_the_estimate_is_near_what_all_reads_would_say() -> None:
    scores = scores_of(1.5, wrong=0.3)
    expected = [auroc(TRUTH[:, k], scores[:, k]) for k in (0, 1)]
    assert judge().aurocs(scores)[:2] == pytest.approx(expected, abs=0.08)


def test_a_finding_that_no_read_speaks_of_keeps_the_given_labels() -> None:
    assert np.isnan(judge().aurocs(scores_of(1.5, 0.0))[2])
    model = build("densenet-slim", FEW, preprocessing=Preprocessing(32))
    truth = np.where(np.arange(240)[:, None] % 2 == 0, 1.0, 0.0) * np.ones(3)
    validation = Validation(model, None, STUDIES, truth, judge(), fast=False)  # type: ignore[arg-type]
    scores = scores_of(1.5, 0.0).astype(np.float32)
    values = validation._aurocs(scores)
    assert values[2] == pytest.approx(auroc(truth[:, 2], scores[:, 2]))
    assert values[0] != pytest.approx(auroc(truth[:, 0], scores[:, 0]))


def test_images_of_a_study_are_judged_together() -> None:
    scores, table = scores_of(1.5, 0.0), table_of()
    assert table is not None
    twice = judge_by_reads(table, np.repeat(STUDIES, 2), FEW)
    apart = np.repeat(scores, 2, axis=0) + np.tile([[0.05], [-0.05]], (240, 1))
    assert twice.aurocs(apart)[:2] == pytest.approx(judge().aurocs(scores)[:2])


def test_too_few_reads_judge_nothing() -> None:
    assert table_of(8) is None


def test_other_reads_are_another_judge_and_the_same_ones_the_same() -> None:
    assert judge().digest() == judge().digest()
    assert judge().digest() != judge(60).digest()
    assert "120 blind reads of 240" in judge().name


def test_it_can_be_sent_to_other_processes() -> None:
    scores = scores_of(1.5, 0.0)
    again = pickle.loads(pickle.dumps(judge()))
    np.testing.assert_array_equal(again.aurocs(scores), judge().aurocs(scores))


def test_reads_that_were_not_drawn_by_chance_are_refused() -> None:
    table = table_of()
    assert table is not None
    zero = table.assign(sampling_probability=table["sampling_probability"].where(table["study"] != "S000", 0.0))
    with pytest.raises(BadLabelValue, match="sampling_probability must lie above 0"):
        judge_by_reads(zero, STUDIES, FEW).aurocs(scores_of(1.5, 0.0))
