"""Choosing reads with known probabilities, and how many are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from radia.errors import LabelError, UnknownFinding
from radia.posterior import evidence
from radia.reads import choose, plan, plan_of_files, power, queues, sampling_probabilities, systematic_sample
from radia.suspects import find_suspects

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def _tables(studies: int = 200, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    chance = np.random.default_rng(seed)
    truth = chance.random((studies, 3)) < [0.3, 0.1, 0.2]
    probs = expit(chance.normal(size=truth.shape) + 2 * truth - 1.5)
    given = np.where(chance.random(truth.shape) < 0.15, ~truth, truth).astype(float)
    ids = [f"s{number}" for number in range(studies)]
    return pd.DataFrame(given, index=ids, columns=list("ABC")), pd.DataFrame(probs, index=ids, columns=list("ABC"))


class TestChoose:
    def test_the_probabilities_sum_to_the_budget(self) -> None:
        given, probs = _tables()
        wanted = sampling_probabilities(evidence(probs.to_numpy(), given.to_numpy()), probs.to_numpy(), budget=40)
        assert wanted.sum() == pytest.approx(40)
        assert wanted.min() > 0
        assert wanted.max() <= 1

    def test_each_study_is_drawn_as_often_as_its_probability_says(self) -> None:
        wanted = np.array([0.9, 0.5, 0.3, 0.2, 0.1, 1.0])
        chance = np.random.default_rng(0)
        drawn = np.zeros(6)
        for _ in range(4000):
            drawn[systematic_sample(wanted, chance)] += 1
        np.testing.assert_allclose(drawn / 4000, wanted, atol=0.03)

    def test_exactly_the_budget_is_chosen_without_doubles(self) -> None:
        given, probs = _tables()
        for seed in range(20):
            chosen = choose(given, probs, budget=37, seed=seed)
            assert len(chosen) == chosen["id"].nunique() == 37
            assert chosen.columns.tolist() == ["id", "sampling_probability"]

    def test_a_budget_for_everything_reads_everything(self) -> None:
        given, probs = _tables(30)
        chosen = choose(given, probs, budget=50)
        assert len(chosen) == 30
        assert (chosen["sampling_probability"] == 1).all()

    def test_the_seed_decides(self) -> None:
        given, probs = _tables()
        assert choose(given, probs, budget=20, seed=1).equals(choose(given, probs, budget=20, seed=1))
        assert not choose(given, probs, budget=20, seed=1).equals(choose(given, probs, budget=20, seed=2))

    def test_a_budget_of_nothing_is_refused(self) -> None:
        given, probs = _tables(30)
        with pytest.raises(LabelError, match="at least 1"):
            choose(given, probs, budget=0)


class TestQueues:
    @pytest.fixture(scope="class")
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        given, probs = _tables()
        return given, probs, find_suspects(given, probs)

    def test_one_budget_gives_three_queues(self, tables: Tables) -> None:
        test = list(tables[0].index[:80])
        queue = queues(*tables, budget=50, test=test).queue
        assert queue["queue"].value_counts().to_dict() == {"evaluation": 25, "cleaning": 23, "repeat": 2}
        assert set(queue.loc[queue["queue"] == "evaluation", "id"]) <= set(test)
        assert not set(queue.loc[queue["queue"] == "cleaning", "id"]) & set(test)
        assert set(queue.loc[queue["queue"] == "repeat", "id"]) <= set(queue.loc[queue["queue"] == "evaluation", "id"])

    def test_only_evaluation_reads_carry_a_probability(self, tables: Tables) -> None:
        queue = queues(*tables, budget=50, test=list(tables[0].index[:80])).queue
        assert (queue["sampling_probability"].notna() == (queue["queue"] == "evaluation")).all()

    def test_the_design_covers_the_whole_test_side(self, tables: Tables) -> None:
        drawn = queues(*tables, budget=50, test=list(tables[0].index[:80]))
        assert len(drawn.design) == 80
        assert drawn.design["sampling_probability"].sum() == pytest.approx(25)

    def test_cleaning_begins_with_the_study_that_has_most_wrong_labels(self, tables: Tables) -> None:
        test = list(tables[0].index[:80])
        queue = queues(*tables, budget=50, test=test).queue
        outside = tables[2][~tables[2]["id"].isin(test)]
        expected = outside.groupby("id")["probability"].sum().nlargest(23)
        assert list(queue.loc[queue["queue"] == "cleaning", "id"]) == list(expected.index)

    def test_every_site_is_drawn_from_as_its_probabilities_say(self, tables: Tables) -> None:
        test = list(tables[0].index[:80])
        site = {study: "small" if number < 16 else "large" for number, study in enumerate(test)}
        for seed in range(5):
            drawn = queues(*tables, budget=50, test=test, strata=site, seed=seed)
            expected = drawn.design.groupby(drawn.design["id"].map(site))["sampling_probability"].sum()
            chosen = drawn.queue[drawn.queue["queue"] == "evaluation"]["id"].map(site).value_counts()
            assert abs(chosen["small"] - expected["small"]) < 1
            assert abs(chosen["large"] - expected["large"]) < 1

    def test_a_second_budget_asks_for_no_study_twice(self, tables: Tables) -> None:
        test = list(tables[0].index[:80])
        first = queues(*tables, budget=50, test=test)
        second = queues(*tables, budget=50, test=test, before=first.queue)
        together = pd.concat([first.queue, second.queue])
        assert not together.duplicated(["id", "queue"]).any()
        assert set(second.queue["draw"]) == {2}
        assert len(second.design) == 80

    def test_reads_to_judge_epochs_by_come_from_the_validation_side_with_their_probabilities(
        self, tables: Tables
    ) -> None:
        test, beside = list(tables[0].index[:80]), list(tables[0].index[80:110])
        shares = {"evaluation": 0.4, "validation": 0.2, "repeat": 0.1}
        drawn = queues(*tables, budget=50, test=test, validation=beside, shares=shares)
        asked = drawn.queue[drawn.queue["queue"] == "evaluation"]
        assert (asked["id"].isin(test).sum(), asked["id"].isin(beside).sum()) == (20, 10)
        chances = drawn.design.set_index("id")["sampling_probability"]
        assert chances[beside].sum() == pytest.approx(10)
        assert (asked.set_index("id")["sampling_probability"] == chances[asked["id"]]).all()
        assert not drawn.queue.loc[drawn.queue["queue"] == "cleaning", "id"].isin(asked["id"]).any()

    def test_a_test_side_without_labels_is_refused(self, tables: Tables) -> None:
        with pytest.raises(LabelError, match="test side"):
            queues(*tables, budget=50, test=["elsewhere"])


class TestPlan:
    def test_a_narrower_interval_needs_more_reads(self) -> None:
        given, probs = _tables(400)
        wide = plan(given, probs, finding="A", half_width=0.06, replicates=2)
        narrow = plan(given, probs, finding="A", half_width=0.03, replicates=2)
        assert wide.needed is not None
        assert narrow.needed is None or narrow.needed > wide.needed
        assert "A:" in wide.sentence()

    def test_an_unknown_finding_is_refused(self) -> None:
        given, probs = _tables(60)
        with pytest.raises(UnknownFinding):
            plan(given, probs, finding="Z", half_width=0.05)


class TestPower:
    def test_it_is_the_plan_of_every_finding(self) -> None:
        given, probs = _tables(120)
        curves = power(given, probs, replicates=2)
        assert list(curves) == ["A", "B", "C"]
        assert [budget for budget, _ in curves["A"]] == [25, 50, 100]
        assert curves["A"][-1][1] < curves["A"][0][1]
        assert plan(given, probs, finding="A", half_width=0.001, replicates=2).curve == tuple(curves["A"])


class TestFiles:
    def test_a_plan_counts_the_reads_that_exist(self, tmp_path: Path) -> None:
        given, probs = _tables(120)
        for name, frame in (("L", given), ("P", probs), ("R", given.head(100))):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="id")
        before = plan_of_files(tmp_path / "L.csv", tmp_path / "P.csv", finding="A", half_width=0.01)
        after = plan_of_files(
            tmp_path / "L.csv", tmp_path / "P.csv", finding="A", half_width=0.01, reads=tmp_path / "R.csv"
        )
        assert after.curve[0][1] < 0.7 * before.curve[0][1]
