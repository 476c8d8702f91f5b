"""Agreement of readers: known tables, and the latent reader model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from radia.agreement import agreement, cohen, latent_readers


def _log(**votes: list[float]) -> pd.DataFrame:
    """Reads of one finding: each reader's values of the studies 0, 1, 2 ..."""
    rows = [
        {"id": str(number), "finding": "Edema", "reader": reader, "value": value, "model_visible": False}
        for reader, values in votes.items()
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


class TestAgreement:
    def test_cohen_of_a_known_table(self) -> None:
        """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.4 (Cohen's own example in every textbook)."""
        first = np.repeat([1.0, 1.0, 0.0, 0.0], [20, 5, 10, 15])
        second = np.repeat([1.0, 0.0, 1.0, 0.0], [20, 5, 10, 15])
        assert cohen(first, second) == pytest.approx(0.4)

    def test_readers_who_always_agree_have_a_kappa_of_one(self) -> None:
        log = _log(r1=[1, 0, 0], r2=[1, 0, 0])
        found = agreement(log, replicates=50).iloc[0]
        assert found["studies"] == 3
        assert found["fleiss"] == pytest.approx(1)
        assert found["cohen"] == pytest.approx(1)

    def test_the_latent_reader_model_finds_the_careless_reader(self) -> None:
        chance = np.random.default_rng(0)
        truth = (chance.random(600) < 0.4).astype(float)
        error = [0.05, 0.05, 0.35]
        votes = np.column_stack([np.where(chance.random(600) < rate, 1 - truth, truth) for rate in error])
        found = latent_readers(votes)
        assert found.sensitivity[2] == pytest.approx(0.65, abs=0.08)
        assert found.sensitivity[0] > 0.88
        assert found.prevalence == pytest.approx(truth.mean(), abs=0.04)

    def test_a_read_with_the_model_visible_does_not_count(self) -> None:
        log = _log(r1=[1, 0, 0], r2=[0, 1, 1])
        assert agreement(log.assign(model_visible=True), replicates=10).empty
