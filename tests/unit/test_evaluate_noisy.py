"""Candidate and base estimated by given labels, by reads alone and by both; what the page says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from radia.errors import BiasedReads
from radia.estimate import noisy_set
from radia.evaluate import evaluate_candidate, noisy_section, under_noise
from radia.evaluate.noisy import reads_only, sentence
from radia.gate import Outcome, decide
from radia.metrics import auroc
from radia.reads import design, systematic_sample
from radia.settings import EvaluateSettings, GateSettings

FINDINGS = ("Edema", "Pleural Effusion", "Fracture")
LIMITS = dict.fromkeys(FINDINGS, 0.5)


def _case(studies: int = 240, seed: int = 0) -> dict[str, Any]:
    """A good candidate and a poorer base on labels of which a sixth is wrong; 80 studies read with known chances."""
    chance = np.random.default_rng(seed)
    truth = (chance.random((studies, 3)) < (0.4, 0.3, 0.0)).astype(float)
    logits = chance.normal(size=truth.shape) - 1.5
    base, candidate = (1 / (1 + np.exp(-(logits + gain * truth))) for gain in (1.0, 2.5))
    given = np.where(chance.random(truth.shape) < (0.17, 0.17, 0.02), 1 - truth, truth)
    ids = pd.Index([f"s{number}" for number in range(studies)], name="id")
    frames = {
        name: pd.DataFrame(values, index=ids, columns=list(FINDINGS))
        for name, values in (("given", given), ("base", base), ("candidate", candidate), ("truth", truth))
    }
    wanted = design(frames["given"], frames["base"], budget=80)
    picked = systematic_sample(wanted.to_numpy(), np.random.default_rng(seed))
    frames["reads"] = (
        frames["truth"]
        .iloc[picked]
        .assign(readers=2, queue="evaluation", sampling_probability=wanted.to_numpy()[picked], source="simulated")
        .reset_index()
    )
    return frames


def _estimates(case: dict[str, Any]) -> dict[str, Any]:
    models = {name: case[name] for name in ("given", "base", "candidate", "reads")}
    return under_noise(**models, base_thresholds=LIMITS, candidate_thresholds=LIMITS, seed=0)


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return _case(seed=2)


@pytest.fixture(scope="module")
def estimates(case: dict[str, Any]) -> dict[str, Any]:
    return _estimates(case)


@pytest.fixture(scope="module")
def evaluation(case: dict[str, Any], estimates: dict[str, Any]) -> dict[str, Any]:
    ids = case["given"].index
    return {
        **evaluate_candidate(
            case["given"].to_numpy(),
            case["base"].to_numpy(),
            case["candidate"].to_numpy(),
            patients=np.arange(len(ids)),
            groups=pd.DataFrame({"site": "A"}, index=range(len(ids))),
            settings=EvaluateSettings(replicates=100),
            seed=0,
            findings=FINDINGS,
            estimates=estimates,
        ),
        "gold_reads": estimates["read"],
    }


class TestThreeWays:
    def test_reads_bring_the_figures_to_the_truth_that_labels_miss(
        self, case: dict[str, Any], evaluation: dict[str, Any]
    ) -> None:
        true = auroc(case["truth"]["Edema"].to_numpy(), case["candidate"]["Edema"].to_numpy())
        naive = evaluation["models"]["candidate"]["findings"]["Edema"]["auroc"]
        aware = evaluation["estimates"]["candidate"]["findings"]["Edema"]["auroc"]
        alone = evaluation["estimates"]["comparison"]["reads only"]["candidate"]["findings"]["Edema"]["auroc"]
        assert naive["high"] < true
        assert aware["low"] <= true <= aware["high"]
        assert alone["low"] <= true <= alone["high"]

    def test_the_better_candidate_is_seen_to_be_better_in_both(self, estimates: dict[str, Any]) -> None:
        assert estimates["comparison"]["difference"]["means"]["all"]["auroc"]["low"] > 0
        assert estimates["comparison"]["reads only"]["difference"]["findings"]["Edema"]["auroc"]["value"] > 0

    def test_reads_alone_weigh_each_study_by_what_it_stands_for(self, case: dict[str, Any]) -> None:
        first = noisy_set(case["given"], case["base"], case["reads"])
        found = reads_only(first, first)["base"]["findings"]["Edema"]
        reads = case["reads"]
        weight = 1 / reads["sampling_probability"]
        assert found["prevalence"]["value"] == pytest.approx((weight * reads["Edema"]).sum() / weight.sum())

    def test_a_model_does_not_differ_from_itself(self, case: dict[str, Any]) -> None:
        same = noisy_set(case["given"], case["base"], case["reads"])
        gap = reads_only(same, same)["difference"]["means"]["all"]["f1"]
        assert (gap["low"], gap["value"], gap["high"]) == (0, 0, 0)

    def test_a_finding_that_nobody_read_present_has_no_figure(self, estimates: dict[str, Any]) -> None:
        entry = estimates["comparison"]["reads only"]["candidate"]["findings"]["Fracture"]["auroc"]
        assert entry["value"] is None
        assert "fewer than two reads" in entry["why"]

    def test_a_perfect_sample_is_not_taken_for_certainty(self) -> None:
        case = _case(seed=1)
        perfect = case["candidate"].copy()
        perfect["Edema"] = case["truth"]["Edema"] * 0.8 + 0.1
        few = case["reads"].groupby("Edema").head(8)
        noisy = noisy_set(case["given"], perfect, few)
        entry = reads_only(noisy, noisy)["base"]["findings"]["Edema"]["auroc"]
        assert entry["value"] == 1.0
        assert entry["low"] < 0.95

    def test_reads_of_the_cleaning_queue_are_refused(self, case: dict[str, Any]) -> None:
        chosen = {**case, "reads": case["reads"].assign(queue="cleaning")}
        with pytest.raises(BiasedReads, match="chosen by a model"):
            _estimates(chosen)


class TestPage:
    def test_all_three_are_told(self, evaluation: dict[str, Any]) -> None:
        html = noisy_section(evaluation).html
        assert "80 of 240 test studies were read again, blind" in html
        assert "The given labels alone would have said" in html
        assert "The readers are simulated" in html
        assert "data:image/png" in html
        assert 'href="noise.html"' in html
        table = html[html.index('<table class="numbers">') : html.index("</table>")]
        heading, *rows = table.split("<tr>")[1:]
        assert {row.count("<td") for row in rows} == {heading.count("<th")}

    def test_without_reads_it_says_what_cannot_be_said(self, evaluation: dict[str, Any]) -> None:
        bare = {**evaluation, "estimates": {}, "gold_reads": 0}
        assert "take the given labels for true" in sentence(bare)
        html = noisy_section(bare).html
        assert "Cannot be said" in html
        assert "radia reads queue" in html


class TestGate:
    def test_a_test_side_without_enough_reads_closes_the_gate(self, evaluation: dict[str, Any]) -> None:
        rules = {rule.name: rule for rule in decide(evaluation, GateSettings(min_gold_reads=80)).rules}
        assert rules["gold reads"].outcome is Outcome.PASS
        asked = decide(evaluation, GateSettings(min_gold_reads=81))
        assert {rule.name: rule for rule in asked.rules}["gold reads"].outcome is Outcome.UNKNOWN
        assert not asked.passed
