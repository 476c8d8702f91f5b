"""The experiment on cleaning: every arm is there, and what each does to the labels is what it says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from radia.experiment import ARMS, Size, cleaning, hospital_images, told
from radia.synthetic.readers import ADJUDICATOR, READERS


@pytest.fixture(scope="module")
def result() -> dict:  # type: ignore[type-arg]
    size = Size(public=60, train=60, validation=30, test=60, side=32, base_epochs=1, epochs=1)
    return cleaning(size=size, budget=30, seeds=1, workers=1)


def test_every_arm_is_judged_and_the_oracle_has_no_wrong_label(result: dict) -> None:  # type: ignore[type-arg]
    arms = result["arms"]
    assert list(arms) == list(ARMS)
    assert arms["true labels"]["wrong"] == 0
    assert arms["weighed"]["wrong"] == arms["softened"]["wrong"] == arms["given labels"]["wrong"] > 0.02
    assert arms["suspects read"]["wrong"] < arms["given labels"]["wrong"]
    assert all(0 < entry["auroc"] < 1 for entry in arms.values())


def test_one_hospital_alone_gives_no_limits(result: dict) -> None:  # type: ignore[type-arg]
    gain = result["arms"]["suspects read"]["gain"]
    assert gain["low"] is gain["high"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert "true labels" in told(result)


def test_hospitals_differ_by_seed_alone() -> None:
    first, again, other = (hospital_images(6, side=32, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.given, again.given)
    assert (first.images != other.images).any()


class TestSimulatedReaders:
    TRUTH = pd.DataFrame(
        np.tile([1.0, 0.0], (400, 1)), index=[f"s{number}" for number in range(400)], columns=["Edema", "Fracture"]
    )

    @pytest.mark.parametrize("reader", [*READERS, ADJUDICATOR], ids=lambda reader: reader.name)
    def test_they_err_at_their_rates(self, reader) -> None:  # type: ignore[no-untyped-def]
        said = reader.read(self.TRUTH, seed=0)
        assert said["Edema"].mean() == pytest.approx(reader.sensitivity, abs=0.05)
        assert 1 - said["Fracture"].mean() == pytest.approx(reader.specificity, abs=0.03)

    def test_a_reader_says_the_same_of_a_study_whatever_else_is_asked(self) -> None:
        whole = READERS[0].read(self.TRUTH, seed=0)
        part = READERS[0].read(self.TRUTH.iloc[100:120], seed=0)
        pd.testing.assert_frame_equal(part, whole.iloc[100:120])

    def test_readers_err_on_different_studies(self) -> None:
        first, second = (reader.read(self.TRUTH, seed=0)["Edema"] == 0 for reader in READERS)
        assert 0 < (first & second).sum() < min(first.sum(), second.sum()) / 2

    def test_a_second_look_repeats_some_errors_and_not_all(self) -> None:
        first, second = (READERS[0].read(self.TRUTH, seed=0, look=look)["Edema"] == 0 for look in (0, 1))
        assert 0 < (first & second).sum() < first.sum()
