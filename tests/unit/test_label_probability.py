"""What a label says, as the probability that the finding is there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from radia.cli import main
from radia.errors import BiasedReads, LabelError, UnmatchedIds
from radia.findings import FINDINGS, UncertaintyPolicy, training_targets
from radia.label_probability import STATED, LabelProbabilities, label_probabilities, soft_targets
from radia.settings import LabelSettings, Settings
from radia.snapshot import Snapshot
from radia.steps.run import Run
from radia.steps.soft_labels import soft_inputs, soft_targets_of
from radia.steps.training import _softened
from radia.workspace import Workspace

NAN = float("nan")
NAMES = ("A", "B", "C")


def world(studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Given labels, true labels, and the P(present) of each finding and stated value that made them."""
    chance = np.random.default_rng(seed)
    true_rate = np.array([[0.8, 0.05, 0.5, 0.2], [0.6, 0.02, 0.1, 0.05], [0.9, 0.1, 0.4, 0.3]])
    stated = chance.integers(0, 4, size=(studies, 3))
    given = np.array(list(STATED.values()))[stated]
    truth = (chance.random((studies, 3)) < true_rate[np.arange(3), stated]).astype(float)
    return given, truth, true_rate


class TestProbabilities:
    def test_with_many_reads_they_are_the_rates(self) -> None:
        given, truth, rate = world(20_000)
        found = label_probabilities(given, truth, findings=NAMES)
        assert np.abs(found.probability - rate).max() < 0.03

    def test_limits_hold_about_as_often_as_they_say(self) -> None:
        held = total = 0
        for seed in range(25):
            given, truth, rate = world(120, seed)
            found = label_probabilities(given, truth, findings=NAMES)
            held += int(((found.low <= rate) & (rate <= found.high)).sum())
            total += rate.size
        assert 0.9 <= held / total <= 1.0

    def test_a_finding_with_few_reads_leans_on_the_others(self) -> None:
        given = np.full((203, 3), NAN)
        truth = np.zeros((203, 3))
        truth[200:, :2] = NAN
        truth[:200, 2] = NAN
        truth[200, 2] = 1.0  # one hit among three reads of a blank
        found = label_probabilities(given, truth, findings=NAMES)
        assert 0.02 < found.probability[2, 3] < 0.25
        assert found.probability[0, 3] < 0.02
        assert found.high[2, 3] - found.low[2, 3] > found.high[0, 3] - found.low[0, 3]

    def test_a_stated_value_that_was_never_read_is_wide_open(self) -> None:
        given, truth, _ = world(300)
        truth[given == -1] = NAN
        found = label_probabilities(given, truth, findings=NAMES)
        assert (found.reads[:, 2] == 0).all()
        assert (found.high[:, 2] - found.low[:, 2] > 0.7).all()

    def test_reads_weigh_by_their_sampling_probability(self) -> None:
        given = np.zeros((1000, 1))
        truth = np.r_[np.ones(100), np.zeros(900)][:, None]
        chosen = np.r_[np.arange(100), np.arange(100, 1000, 9)]
        reads = np.full((1000, 1), NAN)
        reads[chosen] = truth[chosen]
        sampling = np.full(1000, NAN)
        sampling[chosen] = np.where(chosen < 100, 1.0, 1 / 9)
        naive = label_probabilities(given, reads, findings=("A",)).probability[0, 1]
        weighted = label_probabilities(given, reads, findings=("A",), sampling=sampling)
        assert naive > 0.4
        assert weighted.probability[0, 1] == pytest.approx(0.1, abs=0.02)
        assert weighted.reads[0, 1] < len(chosen)

    def test_reads_that_a_model_may_have_chosen_are_refused(self) -> None:
        with pytest.raises(BiasedReads, match="1 read studies"):
            label_probabilities(np.ones((2, 1)), np.ones((2, 1)), findings=("A",), sampling=np.array([0.5, NAN]))

    def test_without_reads_there_is_nothing_to_learn_from(self) -> None:
        with pytest.raises(LabelError, match="there is none"):
            label_probabilities(np.ones((2, 1)), np.full((2, 1), NAN), findings=("A",))

    def test_what_is_written_is_read_back(self) -> None:
        given, truth, _ = world(100)
        found = label_probabilities(given, truth, findings=NAMES)
        again = LabelProbabilities.from_json(json.loads(json.dumps(found.as_json())), NAMES)
        assert np.array_equal(again.probability, found.probability)
        assert np.array_equal(again.high, found.high)


class TestSoftTargets:
    def test_a_read_cell_is_what_was_read(self) -> None:
        given, truth, _ = world(200)
        reads = np.where(np.arange(200)[:, None] < 100, truth, NAN)
        soft = soft_targets(given, reads)
        assert np.array_equal(soft[:100], truth[:100])
        assert ((soft[100:] > 0) & (soft[100:] < 1)).all()

    def test_they_predict_better_than_uncertain_as_zero_or_one(self) -> None:
        given, truth, _ = world(600)
        reads = np.where(np.arange(600)[:, None] < 200, truth, NAN)

        def loss(targets: np.ndarray) -> float:
            p = np.clip(targets[200:], 0.01, 0.99)
            return float(-(truth[200:] * np.log(p) + (1 - truth[200:]) * np.log(1 - p)).mean())

        as_zero, as_one = (np.nan_to_num(np.where(given == -1, value, given)) for value in (0.0, 1.0))
        assert loss(soft_targets(given, reads)) < 0.7 * min(loss(as_zero), loss(as_one))

    def test_probabilities_given_already_stay(self) -> None:
        given, truth, _ = world(50)
        found = label_probabilities(given, truth, findings=NAMES)
        assert found.of(np.array([[0.3, 1.0, NAN]]))[0, 0] == 0.3


class TestPolicy:
    def settings(self, **options: object) -> Settings:
        policies = {"Edema": UncertaintyPolicy.SOFT}
        return Settings(labels=LabelSettings.model_validate({"uncertain_by_finding": policies, **options}))

    def labels(self, value: float) -> pd.DataFrame:
        return pd.DataFrame(value, index=[f"s{n}" for n in range(60)], columns=list(FINDINGS))

    def test_no_model_is_judged_by_a_probability(self) -> None:
        targets, weights = training_targets(np.full((1, 14), -1.0), {"Edema": UncertaintyPolicy.SOFT})
        assert weights[0, FINDINGS.index("Edema")] == 0.0
        assert targets[0, FINDINGS.index("Edema")] == 0.0

    def test_only_findings_with_the_policy_become_soft(self, tmp_path: Path) -> None:
        reads = self.labels(1.0).iloc[:40].assign(sampling_probability=0.5)
        reads.iloc[:20, :14] = 0.0
        run = Run(Workspace(tmp_path), self.settings(), "somebody")
        soft = soft_targets_of(run, self.labels(-1.0), reads)
        assert list(soft.columns) == ["Edema"]
        assert soft["Edema"].iloc[:20].eq(0.0).all()
        assert soft["Edema"].iloc[40:].between(0.35, 0.65).all()

    def test_reads_that_a_model_chose_teach_nothing_but_stay(self, tmp_path: Path) -> None:
        reads = self.labels(1.0).iloc[:40].assign(sampling_probability=[0.5] * 20 + [NAN] * 20)
        reads.iloc[:20, :14] = 0.0
        run = Run(Workspace(tmp_path), self.settings(), "somebody")
        soft = soft_targets_of(run, self.labels(-1.0), reads)
        assert soft["Edema"].iloc[20:40].eq(1.0).all()
        assert (soft["Edema"].iloc[40:] < 0.2).all()

    def test_training_rows_become_soft_and_no_others(self, tmp_path: Path) -> None:
        run = Run(Workspace(tmp_path), self.settings(), "somebody")
        studies = [f"s{n}" for n in range(60)]
        for folder in (run.workspace.labels, run.workspace.reads):
            folder.mkdir(parents=True)
        self.labels(-1.0).rename_axis("study").reset_index().to_parquet(run.workspace.labels / "given.parquet")
        reads = self.labels(1.0).iloc[:30].assign(sampling_probability=0.5).rename_axis("study").reset_index()
        reads.to_parquet(run.workspace.reads / "reads.parquet")
        split = ["train"] * 40 + ["test"] * 20
        frozen = SimpleNamespace(images=pd.DataFrame({"study": studies, "split": split}))
        rows = np.arange(60) < 40
        zeros = np.zeros((60, 14), dtype=np.float32)
        targets, weights = _softened(run, cast(Snapshot, frozen), zeros, zeros, rows=rows)
        edema = FINDINGS.index("Edema")
        assert (targets[:30, edema] == 1).all()
        assert ((targets[30:40, edema] > 0.5) & (targets[30:40, edema] < 1)).all()
        assert (weights[:40, edema] == 1).all()
        others = np.delete(targets, edema, axis=1)
        assert not others.any()
        assert not targets[40:].any()
        assert not weights[40:].any()

    def test_probabilities_may_come_from_a_file(self, tmp_path: Path) -> None:
        given, truth, _ = world(100)
        found = label_probabilities(given[:, :1], truth[:, :1], findings=("Edema",))
        (tmp_path / "p.json").write_text(json.dumps({"probabilities": found.as_json()}))
        run = Run(Workspace(tmp_path), self.settings(probabilities="p.json"), "somebody")
        assert list(soft_inputs(run)) == ["label probabilities"]
        soft = soft_targets_of(run, self.labels(NAN), None)
        assert soft["Edema"].iloc[0] == pytest.approx(found.probability[0, 3])

    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text('{"probabilities": {}}')
        run = Run(Workspace(tmp_path), self.settings(probabilities="p.json"), "somebody")
        with pytest.raises(LabelError, match="is not what"):
            soft_targets_of(run, self.labels(NAN), None)

    def test_without_reads_or_file_the_policy_is_refused(self, tmp_path: Path) -> None:
        run = Run(Workspace(tmp_path), self.settings(), "somebody")
        with pytest.raises(LabelError, match="there is none"):
            soft_targets_of(run, self.labels(-1.0), None)


class TestCommand:
    def write(self, folder: Path, name: str, values: np.ndarray, first: int = 0) -> str:
        ids = [f"s{number}" for number in range(first, first + len(values))]
        path = folder / name
        pd.DataFrame(values, columns=["Edema", "Fracture", "Atelectasis"]).assign(id=ids).set_index("id").to_csv(path)
        return str(path)

    def test_probabilities_are_told_and_kept(self, tmp_path: Path) -> None:
        given, truth, rate = world(2000)
        arguments = [
            "labels",
            "probabilities",
            self.write(tmp_path, "g.csv", given),
            self.write(tmp_path, "r.csv", truth),
        ]
        out = tmp_path / "p.json"
        result = CliRunner().invoke(main, [*arguments, "--out", str(out), "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == json.loads(out.read_text())
        cell = json.loads(result.stdout)["probabilities"]["Fracture"]["uncertain"]
        assert cell["low"] < rate[1, 2] < cell["high"]

    def test_reads_of_other_studies_are_refused(self, tmp_path: Path) -> None:
        given, truth, _ = world(5)
        result = CliRunner().invoke(
            main,
            [
                "labels",
                "probabilities",
                self.write(tmp_path, "g.csv", given),
                self.write(tmp_path, "r.csv", truth, first=100),
            ],
        )
        assert result.exit_code == 1
        assert "none of the 5 ids" in result.stderr
        assert issubclass(UnmatchedIds, LabelError)
