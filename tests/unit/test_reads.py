"""Choosing reads with known probabilities, keeping them blind; states of a read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.posterior import evidence
from radia.reads import (
    choose,
    decide,
    export_blind,
    export_of_files,
    import_of_files,
    import_reads,
    plan,
    plan_of_files,
    queues,
    sampling_probabilities,
    status,
    status_of_files,
    systematic_sample,
    true_labels,
)
from radia.suspects import find_suspects


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
    def test_only_evaluation_reads_carry_a_probability(self) -> None:
        given, probs = _tables()
        test = list(given.index[:80])
        queue = queues(given, probs, find_suspects(given, probs), budget=50, test=test)
        counts = queue["queue"].value_counts().to_dict()
        assert counts == {"evaluation": 25, "cleaning": 20, "repeat": 5}
        assert (queue["sampling_probability"].notna() == (queue["queue"] == "evaluation")).all()
        assert set(queue.loc[queue["queue"] == "evaluation", "id"]) <= set(test)
        assert not set(queue.loc[queue["queue"] == "cleaning", "id"]) & set(test)


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


QUEUE = pd.DataFrame({"id": ["a", "b", "c"], "queue": "evaluation", "sampling_probability": [0.2, 0.5, 0.4]})


def _sheet(**values: float) -> pd.DataFrame:
    return pd.DataFrame({"Edema": values}).rename_axis("id").reset_index()


class TestBlindReads:
    def test_the_sheet_shows_no_label_score_or_queue(self) -> None:
        sheet = export_blind(QUEUE, ["Edema", "Fracture"])
        assert sheet.columns.tolist() == ["id", "Edema", "Fracture"]
        assert sheet[["Edema", "Fracture"]].isna().all(axis=None)
        assert sorted(sheet["id"]) == ["a", "b", "c"]

    def test_two_readers_who_agree_settle_a_study(self) -> None:
        log = import_reads(_sheet(a=1, b=0, c=1), reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=1, b=1), reader="r2", queue=QUEUE, log=log)
        states = status(QUEUE, log).set_index("id")["state"].to_dict()
        assert states == {"a": "settled", "b": "disagreement", "c": "one reader"}

    def test_the_adjudicator_has_the_last_word(self) -> None:
        log = import_reads(_sheet(a=1), reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=0), reader="r2", queue=QUEUE, log=log)
        assert np.isnan(decide(log)["value"].iloc[0])
        log = import_reads(_sheet(a=0), reader="chief", queue=QUEUE, log=log)
        decided = decide(log, adjudicator="chief").iloc[0]
        assert decided["value"] == 0
        assert decided["readers"] == 3
        assert decided["adjudicated"]

    def test_an_adjudicated_study_is_settled(self) -> None:
        log = import_reads(_sheet(a=1), reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=0), reader="r2", queue=QUEUE, log=log)
        log = import_reads(_sheet(a=0), reader="chief", queue=QUEUE, log=log)
        assert status(QUEUE, log).set_index("id").loc["a", "state"] == "settled"

    def test_the_same_sheet_twice_changes_nothing(self) -> None:
        log = import_reads(_sheet(a=1, b=0), reader="r1", queue=QUEUE)
        assert len(import_reads(_sheet(a=1, b=0), reader="r1", queue=QUEUE, log=log)) == len(log)

    def test_a_reader_who_contradicts_himself_is_refused(self) -> None:
        log = import_reads(_sheet(a=1), reader="r1", queue=QUEUE)
        with pytest.raises(LabelError, match="contradict"):
            import_reads(_sheet(a=0), reader="r1", queue=QUEUE, log=log)

    def test_a_study_that_nobody_queued_is_refused(self) -> None:
        with pytest.raises(UnmatchedIds, match="1 of 1 ids were not queued"):
            import_reads(_sheet(z=1), reader="r1", queue=QUEUE)

    def test_a_value_of_two_is_refused(self) -> None:
        with pytest.raises(BadLabelValue):
            import_reads(_sheet(a=2), reader="r1", queue=QUEUE)

    def test_a_read_with_the_model_visible_does_not_decide(self) -> None:
        log = import_reads(_sheet(a=1), reader="r1", queue=QUEUE, model_visible=True)
        assert decide(log).empty

    def test_true_labels_keep_the_sampling_probability_and_the_number_of_readers(self) -> None:
        log = import_reads(_sheet(a=1, b=0), reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=1, b=0), reader="r2", queue=QUEUE, log=log)
        table = true_labels(log, queue="evaluation").set_index("id")
        assert table.loc["a"].to_dict() == {
            "Edema": 1.0, "readers": 2, "queue": "evaluation", "sampling_probability": 0.2,
        }  # fmt: skip


class TestFiles:
    def test_a_sheet_goes_out_blank_and_comes_back_into_the_log(self, tmp_path: Path) -> None:
        queue, sheet, log = tmp_path / "queue.csv", tmp_path / "sheet.csv", tmp_path / "log.parquet"
        QUEUE.to_csv(queue, index=False)
        assert export_of_files(queue, sheet, findings=["Edema"]) == 3
        assert status_of_files(queue, log)["states"] == {"evaluation: waiting": 3}
        pd.read_csv(sheet).assign(Edema=1).to_csv(sheet, index=False)
        assert import_of_files(sheet, log, reader="r1", queue=queue)["new"] == 3
        assert import_of_files(sheet, log, reader="r1", queue=queue)["new"] == 0
        assert import_of_files(sheet, log, reader="r2", queue=queue)["readers"] == 2
        assert status_of_files(queue, log)["states"] == {"evaluation: settled": 3}

    def test_a_plan_counts_the_reads_that_exist(self, tmp_path: Path) -> None:
        given, probs = _tables(120)
        for name, frame in (("L", given), ("P", probs), ("R", given.head(100))):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="id")
        before = plan_of_files(tmp_path / "L.csv", tmp_path / "P.csv", finding="A", half_width=0.01)
        after = plan_of_files(
            tmp_path / "L.csv", tmp_path / "P.csv", finding="A", half_width=0.01, reads=tmp_path / "R.csv"
        )
        assert after.curve[0][1] < 0.7 * before.curve[0][1]
