"""Estimates under label noise: the arithmetic, the refusals, and that truth is found where labels mislead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.special import expit, logit

from radia import metrics
from radia.cli import main
from radia.errors import BadLabelValue, BiasedReads, LabelError, UnknownFinding, UnmatchedIds
from radia.estimate import (
    Estimates,
    NoisySet,
    difference,
    estimate,
    estimate_files,
    mass_metrics,
    noise_rates,
    noisy_set,
    table,
)
from radia.reads import choose

Floats = NDArray[np.float64]
NAMES = ("Edema", "Consolidation", "Atelectasis", "Cardiomegaly")


def _hospital(studies: int = 500, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Given labels (40% missed, 10% invented), probabilities with an AUROC near 0.9, and the truth."""
    chance = np.random.default_rng(seed)
    truth = (chance.random((studies, 4)) < [0.3, 0.1, 0.35, 0.25]).astype(float)
    probs = expit(chance.normal(size=truth.shape) + 1.9 * truth - 1.2)
    flipped = chance.random(truth.shape) < np.where(truth == 1, 0.4, 0.1)
    ids = [f"s{number}" for number in range(studies)]
    tables = (np.where(flipped, 1 - truth, truth), probs, truth)
    given, scores, true = (pd.DataFrame(values, index=ids, columns=list(NAMES)) for values in tables)
    return given, scores, true


def _read(true: pd.DataFrame, given: pd.DataFrame, probs: pd.DataFrame, budget: int, seed: int) -> pd.DataFrame:
    chosen = choose(given, probs, budget=budget, seed=seed).set_index("id")
    return true.loc[chosen.index].assign(sampling_probability=chosen["sampling_probability"])


def _set_of(budget: int, seed: int = 0) -> tuple[NoisySet, pd.DataFrame, pd.DataFrame]:
    given, probs, true = _hospital(seed=seed)
    return noisy_set(given, probs, _read(true, given, probs, budget, seed)), probs, true


class TestMassMetrics:
    def test_hard_labels_give_the_metrics_of_the_metrics_module(self) -> None:
        chance = np.random.default_rng(0)
        truth = (chance.random(300) < 0.3).astype(float)
        score = np.round(expit(chance.normal(size=300) + truth), 2)  # with ties
        decision = score >= 0.6
        found = mass_metrics(truth[None], 1 - truth[None], score, decision)
        assert found["auroc"][0] == pytest.approx(metrics.auroc(truth, score))
        assert found["auprc"][0] == pytest.approx(metrics.auprc(truth, score))
        assert found["f1"][0] == pytest.approx(metrics.f1(truth, decision))
        assert found["mcc"][0] == pytest.approx(metrics.mcc(truth, decision))
        assert found["brier"][0] == pytest.approx(metrics.brier(truth, score))
        assert found["ece"][0] == pytest.approx(metrics.ece(truth, score))
        assert found["prevalence"][0] == pytest.approx(truth.mean())

    def test_one_class_has_no_auroc(self) -> None:
        found = mass_metrics(np.zeros((1, 5)), np.ones((1, 5)), np.linspace(0, 1, 5), np.zeros(5, dtype=bool))
        assert np.isnan(found["auroc"][0])
        assert found["specificity"][0] == 1

    def test_a_study_is_not_compared_with_itself(self) -> None:
        """Soft labels of one half everywhere know nothing: an AUROC of one half, whatever the number of studies."""
        half = np.full((1, 4), 0.5)
        assert mass_metrics(half, half, np.arange(4) / 4, np.zeros(4, dtype=bool))["auroc"][0] == pytest.approx(0.5)


class TestEstimate:
    def test_everything_read_gives_the_metric_itself(self) -> None:
        given, probs, true = _hospital(120)
        found = table(estimate(noisy_set(given, probs, true)))
        for finding in NAMES:
            assert found["findings"][finding]["auroc"]["value"] == pytest.approx(
                metrics.auroc(true[finding], probs[finding])
            )
            assert found["findings"][finding]["auroc"]["low"] == found["findings"][finding]["auroc"]["high"]

    def test_sixty_reads_come_much_closer_than_the_labels(self) -> None:
        near, far = [], []
        for seed in range(4):
            studies, probs, true = _set_of(60, seed)
            made = estimate(studies, seed=seed, draws=150)
            for f, finding in enumerate(NAMES):
                right = metrics.auroc(true[finding], probs[finding])
                near.append(abs(float(np.median(made.draws["auroc"][:, f])) - right))
                far.append(abs(made.parts["labels alone"]["auroc"][f] - right))
        assert np.mean(near) < 0.04
        assert np.mean(near) < 0.4 * np.mean(far)

    def test_the_interval_mostly_holds_the_truth(self) -> None:
        held = []
        for seed in range(6):
            studies, probs, true = _set_of(60, seed)
            found = table(estimate(studies, seed=seed, draws=150))["findings"]
            for finding in NAMES:
                decided = probs[finding].to_numpy() >= 0.5
                for metric, right in (
                    ("auroc", metrics.auroc(true[finding], probs[finding])),
                    ("f1", metrics.f1(true[finding], decided)),
                ):
                    held.append(found[finding][metric]["low"] <= right <= found[finding][metric]["high"])
        assert np.mean(held) > 0.85

    def test_where_the_model_of_imputation_is_wrong_many_reads_win(self) -> None:
        """Present only in a window of the scores: no rising curve can say so. The doubly robust part must."""
        chance = np.random.default_rng(1)
        score = chance.random(3000)
        truth = ((score > 0.55) & (score < 0.75)).astype(float)[:, None]
        read = chance.random(3000) < 0.3
        labels = (chance.random((3000, 1)) < 0.2).astype(float)
        studies = NoisySet(
            findings=("A",),
            scores=score[:, None],
            decisions=score[:, None] > 0.5,
            given=labels,
            truth=np.where(read[:, None], truth, np.nan),
            sampling=np.where(read, 0.3, np.nan),
            readers=np.full(3000, np.nan),
        )
        made = estimate(studies)
        assert made.weight[0] > 0.3
        right = metrics.f1(truth[:, 0], score > 0.5)
        assert abs(np.median(made.draws["f1"][:, 0]) - right) < 0.05

    def test_reads_drawn_unevenly_are_weighted_back(self) -> None:
        """Positives are read five times as often as negatives: unweighted, the prevalence would come out at 0.6."""
        chance = np.random.default_rng(4)
        truth = (chance.random((3000, 1)) < 0.23).astype(float)
        sampling = np.where(truth[:, 0] == 1, 0.5, 0.1)
        read = chance.random(3000) < sampling
        scores = chance.random((3000, 1))
        studies = NoisySet(
            findings=("A",),
            scores=scores,
            decisions=scores > 0.5,
            given=(chance.random((3000, 1)) < 0.2).astype(float),
            truth=np.where(read[:, None], truth, np.nan),
            sampling=np.where(read, sampling, np.nan),
            readers=np.full(3000, np.nan),
        )
        made = estimate(studies)
        for name in ("reads only", "doubly robust"):
            assert made.parts[name]["prevalence"][0] == pytest.approx(0.23, abs=0.04)
        assert np.median(made.draws["prevalence"][:, 0]) < 0.35

    def test_the_same_seed_gives_the_same_numbers(self) -> None:
        studies, _, _ = _set_of(40)
        assert table(estimate(studies, seed=3, draws=50)) == table(estimate(studies, seed=3, draws=50))

    def test_another_model_that_knows_the_truth_helps(self) -> None:
        widths: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(3):
            studies, _, true = _set_of(60, seed)
            oracle = true.to_numpy() + 0.5 * np.random.default_rng(seed).random(true.shape)
            for helped in (False, True):
                made = estimate(studies, draws=150, others=[oracle] if helped else [])
                widths[helped].append(float(np.std(made.draws["f1"], axis=0).mean()))
        assert np.mean(widths[True]) < 0.8 * np.mean(widths[False])


class TestRefusals:
    def test_reads_chosen_by_a_model_are_refused(self) -> None:
        given, probs, true = _hospital(100)
        reads = true.head(20).assign(sampling_probability=[0.2] * 19 + [np.nan])
        with pytest.raises(BiasedReads, match="1 of 20 reads have no sampling_probability"):
            noisy_set(given, probs, reads)
        with pytest.raises(BiasedReads, match="other queues"):
            noisy_set(given, probs, true.head(20).assign(queue="cleaning"))

    def test_a_sampling_probability_of_zero_is_refused(self) -> None:
        given, probs, true = _hospital(100)
        with pytest.raises(BadLabelValue, match="above 0"):
            noisy_set(given, probs, true.head(20).assign(sampling_probability=0.0))

    def test_reads_of_unknown_ids_are_refused(self) -> None:
        given, probs, true = _hospital(100)
        with pytest.raises(UnmatchedIds, match="20 of 20 ids"):
            noisy_set(given, probs, true.head(20).rename(index=lambda name: f"x{name}"))

    def test_no_read_at_all_says_that_nothing_can_be_said(self) -> None:
        given, probs, true = _hospital(100)
        with pytest.raises(LabelError, match="no study was read"):
            estimate(noisy_set(given, probs, true.head(5) * np.nan))

    def test_scores_above_one_are_refused_unless_only_ranks_count(self) -> None:
        given, probs, true = _hospital(100)
        with pytest.raises(BadLabelValue, match="outside"):
            noisy_set(given, probs * 3, true.head(30))
        found = table(estimate(noisy_set(given, probs * 3, true.head(30), ranks_only=True), draws=50))
        assert found["findings"]["Edema"]["brier"] == {
            "value": None, "low": None, "high": None, "why": "the scores are only ranks",
        }  # fmt: skip

    def test_tables_without_a_common_finding_are_refused(self) -> None:
        given, probs, true = _hospital(50)
        with pytest.raises(UnknownFinding):
            noisy_set(given, probs, true.head(9).rename(columns=str.upper))

    def test_reads_made_with_the_model_visible_are_set_aside(self) -> None:
        given, probs, true = _hospital(100)
        studies = noisy_set(given, probs, true.head(30).assign(model_visible=[1] * 10 + [0] * 20))
        assert len(studies.rows) == 20
        assert table(estimate(studies, draws=50))["reads"]["seen_with_model_output_and_left_out"] == 10


class TestCommand:
    def test_scores_above_one_are_refused_unless_said_to_be_ranks(self, tmp_path: Path) -> None:
        given, probs, true = _hospital(120)
        for name, frame in (("N", given), ("P", 3 * probs), ("R", true.head(40))):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        files = ["--noisy", f"{tmp_path}/N.csv", "--probs", f"{tmp_path}/P.csv", "--reads", f"{tmp_path}/R.csv"]
        refused, ranks = (CliRunner().invoke(main, ["evaluate", *files, *options]) for options in ([], ["--scores"]))
        assert refused.exit_code == 1
        assert "say `--scores` if only their order counts" in refused.output
        assert json.loads(ranks.output)["findings"]["Edema"]["brier"]["why"] == "the scores are only ranks"

    def test_without_reads_it_answers_in_words(self, tmp_path: Path) -> None:
        given, probs, _ = _hospital(120)
        for name, frame in (("N", given), ("P", probs)):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        told = CliRunner().invoke(
            main, ["evaluate", "--noisy", f"{tmp_path}/N.csv", "--probs", f"{tmp_path}/P.csv", "--json"]
        )
        assert told.exit_code == 0
        assert "What cannot: how often the model is right" in json.loads(told.output)["support"]

    def test_reads_of_one_study_that_contradict_each_other_are_refused(self, tmp_path: Path) -> None:
        given, probs, true = _hospital(120)
        twice = pd.concat([true.head(40), 1 - true.head(2)])
        for name, frame in (("N", given), ("P", probs), ("R", twice)):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        with pytest.raises(UnmatchedIds, match="2 ids stand there more than once"):
            estimate_files(noisy=tmp_path / "N.csv", reads=tmp_path / "R.csv", probs=tmp_path / "P.csv")


class TestTable:
    def test_it_says_what_supports_the_number(self) -> None:
        given, probs, true = _hospital(200)
        found = table(estimate(noisy_set(given, probs, true.head(50).assign(readers=2)), draws=80))
        assert "50 of 200 re-read by two readers;" in found["findings"]["Edema"]["support"]
        assert "labels alone would have said" in found["findings"]["Edema"]["support"]
        assert found["reads"]["readers"] == {"2": 50}

    def test_means_are_over_the_named_findings(self) -> None:
        studies, _, _ = _set_of(50)
        found = table(estimate(studies, draws=80))
        assert found["means"]["competition-5"]["auroc"]["over"] == 4
        values = [found["findings"][finding]["auroc"]["value"] for finding in NAMES]
        assert found["means"]["all"]["auroc"]["value"] == pytest.approx(np.mean(values), abs=0.01)

    def test_few_positive_reads_are_told(self) -> None:
        given, probs, true = _hospital(200)
        reads = pd.concat([true[true["Edema"] == 1].head(3), true[true["Edema"] == 0].head(40)])
        found = table(estimate(noisy_set(given, probs, reads), draws=80))
        assert "43 of 200 re-read, only 3 of them present; the given" in found["findings"]["Edema"]["support"]

    def test_the_fewest_and_the_most_readers_are_told(self) -> None:
        given, probs, true = _hospital(200)
        found = table(estimate(noisy_set(given, probs, true.head(50).assign(readers=[1, 3] * 25)), draws=80))
        assert "50 of 200 re-read by 1 to 3 readers;" in found["findings"]["Edema"]["support"]

    def test_a_finding_without_a_positive_read_has_no_auroc_but_a_prevalence(self) -> None:
        given, probs, true = _hospital(200)
        reads = true.head(40).copy()
        reads["Edema"] = 0.0
        found = table(estimate(noisy_set(given, probs, reads), draws=80))
        edema = found["findings"]["Edema"]
        assert edema["auroc"]["value"] is edema["f1"]["low"] is None
        assert "no positive among 40 reads" in edema["auroc"]["why"]
        assert edema["support"].startswith("AUROC unknown: 40 of 200 re-read, no positive among 40 reads")
        assert edema["prevalence"]["low"] < edema["prevalence"]["value"] < edema["prevalence"]["high"]
        assert edema["specificity"]["value"] > 0
        assert found["means"]["all"]["auroc"]["over"] == 3

    def test_limits_are_wider_the_fewer_reads_of_the_rarer_kind_stand_behind_the_same_draws(self) -> None:
        """Student's t instead of the normal: 3.18 with one read and the two of the prior, 1.98 with a hundred."""
        studies, _, _ = _set_of(120)
        made = estimate(studies, draws=100)
        few = np.full_like(studies.truth, np.nan)
        few[:2] = [[1.0] * 4, [0.0] * 4]
        many, one = (
            table(Estimates(noisy, made.draws, made.parts, made.weight))
            for noisy in (studies, replace(studies, truth=few))
        )
        spans = [
            logit(entry["high"]) - logit(entry["low"])
            for entry in (found["findings"]["Edema"]["auroc"] for found in (one, many))
        ]
        assert 1.4 < spans[0] / spans[1] < 3.18 / 1.96

    def test_a_finding_without_a_negative_read_has_no_specificity(self) -> None:
        given, probs, true = _hospital(200)
        reads = true.head(40).copy()
        reads["Edema"] = 1.0
        edema = table(estimate(noisy_set(given, probs, reads), draws=80))["findings"]["Edema"]
        assert "no negative among 40 reads" in edema["specificity"]["why"]
        assert edema["sensitivity"]["value"] > 0

    def test_without_reads_it_says_what_cannot_be_said(self, tmp_path: Path) -> None:
        given, probs, true = _hospital(150)
        for name, frame in (("N", given), ("P", probs), ("R", true.head(0))):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        none = estimate_files(noisy=tmp_path / "N.csv", reads=None, probs=tmp_path / "P.csv")
        empty = estimate_files(noisy=tmp_path / "N.csv", reads=tmp_path / "R.csv", probs=tmp_path / "P.csv")
        assert none == empty
        edema = none["findings"]["Edema"]
        assert edema["auroc"]["value"] is edema["auroc"]["low"] is None
        assert "no study was read" in edema["auroc"]["why"]
        alone = metrics.auroc(given["Edema"], probs["Edema"])
        naive = {"auroc": alone, "f1": metrics.f1(given["Edema"], probs["Edema"] >= 0.5)}
        naive["prevalence"] = given["Edema"].mean()
        assert edema["estimators"] == {"labels alone": pytest.approx(naive)}
        assert f"the given labels alone would say {alone:.2f}, which is not an estimate of it" in edema["support"]
        assert "What cannot: how often the model is right" in none["support"]

    def test_files_give_what_tables_give(self, tmp_path: Path) -> None:
        given, probs, true = _hospital(150)
        reads = _read(true, given, probs, 40, 0)
        for name, frame in (("N", given), ("P", probs[list(reversed(NAMES))]), ("R", reads)):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        pd.DataFrame({"finding": NAMES, "threshold": 0.4}).to_csv(tmp_path / "T.csv", index=False)
        found = estimate_files(
            noisy=tmp_path / "N.csv", reads=tmp_path / "R.csv", probs=tmp_path / "P.csv",
            thresholds=tmp_path / "T.csv", seed=5,
        )  # fmt: skip
        studies = noisy_set(given, probs, reads, thresholds=dict.fromkeys(NAMES, 0.4))
        direct = table(estimate(studies, seed=5))
        assert found["findings"]["Edema"]["f1"]["value"] == pytest.approx(direct["findings"]["Edema"]["f1"]["value"])


class TestDifference:
    def test_a_better_model_is_seen_to_be_better(self) -> None:
        studies, probs, true = _set_of(100)
        better = expit(np.log(probs / (1 - probs)) + 1.5 * true).to_numpy()
        found = difference(studies, better, better >= 0.5, draws=150)
        assert found["means"]["all"]["auroc"]["low"] > 0

    def test_reads_chosen_for_a_comparison_go_where_the_models_disagree(self) -> None:
        given, probs, _ = _hospital(400)
        rival = probs.copy()
        rival.iloc[:40] = rival.iloc[:40].to_numpy()[::-1]
        both, one = (choose(given, probs, budget=40, compare=other) for other in (rival, None))
        inside = [sum(int(study[1:]) < 40 for study in chosen["id"]) for chosen in (both, one)]
        assert inside[0] > 2 * inside[1]

    def test_a_better_rule_of_one_finding_is_found_with_reads_chosen_for_it(self) -> None:
        """The rival decides ten studies of Edema rightly that the first model misses: a gap in F1 of 0.05."""
        right = 0
        for seed in range(4):
            given, probs, true = _hospital(seed=seed)
            rival = probs.copy()
            missed = probs.index[(true["Edema"] == 1) & (probs["Edema"] < 0.5)][:10]
            rival.loc[missed, "Edema"] = 0.99
            chosen = choose(given, probs, budget=50, seed=seed, compare=rival).set_index("id")
            reads = true.loc[chosen.index].assign(sampling_probability=chosen["sampling_probability"])
            studies = noisy_set(given, probs, reads)
            found = difference(studies, rival.to_numpy(), rival.to_numpy() >= 0.5, draws=100)
            right += found["findings"]["Edema"]["f1"]["value"] > 0.02
        assert right == 4

    def test_files_of_two_models_give_their_difference(self, tmp_path: Path) -> None:
        given, probs, true = _hospital(150)
        better = expit(np.log(probs / (1 - probs)) + 2 * true)
        for name, frame in (("N", given), ("P", probs), ("Q", better), ("R", true.head(60))):
            frame.to_csv(tmp_path / f"{name}.csv", index_label="Study")
        found = estimate_files(
            noisy=tmp_path / "N.csv", reads=tmp_path / "R.csv", probs=tmp_path / "P.csv", compare=tmp_path / "Q.csv"
        )
        assert found["difference"]["means"]["all"]["f1"]["low"] > 0

    def test_a_model_does_not_differ_from_itself(self) -> None:
        studies, _, _ = _set_of(50)
        found = difference(studies, studies.scores, studies.decisions, draws=80)
        assert found["findings"]["Edema"]["f1"]["value"] == 0
        assert found["findings"]["Edema"]["f1"]["p"] == 1


class TestNoiseRates:
    def test_they_are_near_what_was_planted(self) -> None:
        studies, _, _ = _set_of(150)
        rates = noise_rates(studies, draws=150)["all"]
        missed = np.mean([rates[finding]["missed"]["value"] for finding in NAMES])
        assert missed == pytest.approx(0.4, abs=0.1)
        counted = rates["Edema"]["confusion"]
        assert sum(sum(kind.values()) for kind in counted.values()) == 150

    def test_a_site_with_clean_labels_stands_out(self) -> None:
        given, probs, true = _hospital(600)
        clean = np.arange(600) < 300
        given[clean] = true[clean]
        studies = noisy_set(given, probs, _read(true, given, probs, 200, 0))
        rates = noise_rates(studies, groups={"clean": clean, "noisy": ~clean}, draws=100)
        assert rates["clean"]["Edema"]["wrong"]["value"] < rates["noisy"]["Edema"]["wrong"]["value"]
