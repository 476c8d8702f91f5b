"""Agreement of readers: known tables, and the latent reader model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from radia.agreement import LATENT_ASSUMPTIONS, agreement, cohen, latent_readers, latent_truth
from radia.cli import main
from radia.workspace import Workspace


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

    def test_limits_of_both_kappas_stand_around_them(self) -> None:
        chance = np.random.default_rng(1)
        truth = (chance.random(200) < 0.4).astype(float)
        votes = {name: list(np.where(chance.random(200) < 0.1, 1 - truth, truth)) for name in ("r1", "r2", "r3")}
        found = agreement(_log(**votes), replicates=200).iloc[0]
        for value, low, high in (("fleiss", "low", "high"), ("cohen", "cohen_low", "cohen_high")):
            assert found[low] < found[value] < found[high]
            assert 0.1 < found[high] - found[low] < 0.25

    def test_readers_who_see_nothing_anywhere_have_no_kappa(self) -> None:
        found = agreement(_log(r1=[0, 0, 0], r2=[0, 0, 0]), replicates=20).iloc[0]
        assert found["agreement"] == 1
        assert np.isnan([found["fleiss"], found["cohen"], found["cohen_low"]]).all()

    def test_a_read_with_the_model_visible_does_not_count(self) -> None:
        log = _log(r1=[1, 0, 0], r2=[0, 1, 1])
        assert agreement(log.assign(model_visible=True), replicates=10).empty


class TestLatentTruth:
    def test_two_careful_readers_outweigh_a_careless_majority(self) -> None:
        """Three careless readers say yes, two careful ones no: the majority is wrong more often than the model."""
        chance = np.random.default_rng(2)
        truth = (chance.random(400) < 0.4).astype(float)
        error = {"a": 0.03, "b": 0.03, "c": 0.4, "d": 0.4, "e": 0.4}
        votes = {name: np.where(chance.random(400) < rate, 1 - truth, truth) for name, rate in error.items()}
        people, inferred = latent_truth(_log(**{name: list(values) for name, values in votes.items()}), replicates=20)
        inferred = inferred.assign(number=inferred["id"].astype(int)).sort_values("number")
        majority = np.mean(list(votes.values()), axis=0) > 0.5
        assert ((inferred["present"] > 0.5) != truth).mean() < 0.5 * (majority != truth).mean()
        careless = people.set_index("reader").loc["c"]
        assert careless["sensitivity_low"] < 0.6 < careless["sensitivity_high"]
        assert (inferred["readers"] == 5).all()

    def test_studies_with_one_reader_say_nothing(self) -> None:
        people, inferred = latent_truth(_log(r1=[1, 0, 1]), replicates=5)
        assert people.empty
        assert inferred.empty

    def test_the_command_says_what_it_takes_for_granted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_DATA", str(tmp_path))
        site, truth = Workspace(tmp_path), np.tile([1.0, 0.0, 0.0], 20)
        wrong = {name: np.arange(60) % every == 0 for name, every in {"anna": 20, "ben": 15, "cleo": 3}.items()}
        log = _log(**{name: list(np.where(flipped, 1 - truth, truth)) for name, flipped in wrong.items()})
        asked: dict[str, Any] = {"queue": "evaluation", "sampling_probability": 0.5}
        site.read_log.parent.mkdir(parents=True)
        log.assign(role="reader", source="file", **asked).to_parquet(site.read_log)
        pd.DataFrame({"id": log["id"].unique(), "draw": 1, **asked}).to_parquet(site.read_queue)
        plain, latent = (CliRunner().invoke(main, ["reads", "status", *options]) for options in ([], ["--latent"]))
        assert plain.exit_code == latent.exit_code == 0
        assert LATENT_ASSUMPTIONS[1] not in plain.output
        assert LATENT_ASSUMPTIONS[1] in latent.output
        assert "Edema, cleo: sensitivity" in latent.output
