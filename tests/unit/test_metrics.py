from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from radia import metrics
from radia.findings import COMPETITION_5

FIVE = tuple(COMPETITION_5)


def table(truth: metrics.Floats, probs: metrics.Floats, **how: Any) -> dict[str, Any]:
    return metrics.table_of(metrics.assess(truth, probs, **how))


def study(
    n: int = 300, findings: int = 5, *, seed: int = 0, strength: float = 1.0
) -> tuple[metrics.Floats, metrics.Floats]:
    """Truth [n, findings] and probabilities with many ties."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, findings)) < rng.uniform(0.1, 0.5, findings)).astype(float)
    logits = strength * (2 * truth - 1) + rng.normal(size=truth.shape) - 0.5
    return truth, np.round(1 / (1 + np.exp(-logits)), 2)


class TestOneNumber:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_metric_equals_scikit_learns(self, seed: int) -> None:
        truth, probs = study(seed=seed, findings=1)
        y, p = truth[:, 0], probs[:, 0]
        called = p >= 0.5
        assert metrics.auroc(y, p) == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
        assert metrics.auprc(y, p) == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
        assert metrics.f1(y, called) == pytest.approx(reference.f1_score(y, called), abs=1e-12)
        assert metrics.mcc(y, called) == pytest.approx(reference.matthews_corrcoef(y, called), abs=1e-12)
        assert metrics.brier(y, p) == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)

    def test_ties_count_half(self) -> None:
        assert metrics.auroc([0, 1, 0, 1], [0.2, 0.2, 0.2, 0.2]) == 0.5
        assert metrics.auroc([0, 1, 1], [0.3, 0.3, 0.9]) == 0.75

    def test_scores_that_differ_in_the_last_bit_are_no_ties(self) -> None:
        assert metrics.auroc([0, 1], [0.3, np.nextafter(0.3, 1)]) == 1.0

    def test_weights_mean_repeated_rows(self) -> None:
        y, p, times = np.array([0, 1, 0, 1.0]), np.array([0.1, 0.4, 0.5, 0.9]), np.array([2, 1, 3, 2])
        again = np.repeat(np.arange(4), times)
        assert metrics.auroc(y, p, times) == pytest.approx(metrics.auroc(y[again], p[again]))
        assert metrics.auprc(y, p, times) == pytest.approx(metrics.auprc(y[again], p[again]))
        assert metrics.f1(y, p > 0.45, times) == pytest.approx(metrics.f1(y[again], p[again] > 0.45))

    def test_a_soft_label_is_part_positive_and_part_negative(self) -> None:
        soft = metrics.auroc([0.25, 1.0, 0.0], [0.5, 0.9, 0.1])
        split = metrics.auroc([1, 0, 1, 0], [0.5, 0.5, 0.9, 0.1], [0.25, 0.75, 1, 1])
        assert soft == pytest.approx(split)

    def test_one_class_has_no_auroc(self) -> None:
        assert np.isnan(metrics.auroc([1, 1], [0.1, 0.9]))
        assert np.isnan(metrics.auprc([0, 0], [0.1, 0.9]))

    def test_mcc_of_equal_decisions_is_zero_as_in_scikit_learn(self) -> None:
        assert metrics.mcc([0, 1, 1], [0, 0, 0]) == 0.0

    def test_calibration_error_by_hand(self) -> None:
        # tenth 3: predicted 0.25, observed 0.5, half of the rows; tenth 9: 0.85 against 1
        assert metrics.ece([0, 1, 1, 1], [0.25, 0.25, 0.85, 0.85]) == pytest.approx(0.5 * 0.25 + 0.5 * 0.15)


class TestThresholds:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_other_threshold_has_a_larger_f1(self, seed: int) -> None:
        truth, probs = study(seed=seed, findings=3)
        for k, threshold in enumerate(metrics.choose_thresholds(truth, probs)):
            chosen = metrics.f1(truth[:, k], probs[:, k] >= threshold)
            every = [metrics.f1(truth[:, k], probs[:, k] >= other) for other in np.unique(probs[:, k])]
            assert chosen == pytest.approx(max(every), abs=1e-12)

    def test_the_threshold_lies_between_the_classes(self) -> None:
        assert metrics.choose_thresholds([[0], [0], [1], [1]], [[0.1], [0.2], [0.6], [0.7]]) == pytest.approx([0.4])

    def test_a_finding_without_positives_keeps_one_half(self) -> None:
        assert metrics.choose_thresholds([[0.0], [np.nan]], [[0.1], [0.9]]) == [0.5]

    def test_unknown_truth_is_left_out(self) -> None:
        known = metrics.choose_thresholds([[0], [1]], [[0.2], [0.6]])
        assert metrics.choose_thresholds([[0], [np.nan], [1]], [[0.2], [0.95], [0.6]]) == pytest.approx(known)


class TestDeLong:
    def test_the_variance_equals_its_definition(self) -> None:
        truth, probs = study(80, 1)
        y, p = truth[:, 0] > 0, probs[:, 0]
        wins = (p[y][:, None] > p[~y][None]) + 0.5 * (p[y][:, None] == p[~y][None])
        variance = wins.mean(1).var(ddof=1) / y.sum() + wins.mean(0).var(ddof=1) / (~y).sum()
        result = metrics.delong(y, p)
        assert result.values[0] == pytest.approx(wins.mean())
        assert result.covariance[0, 0] == pytest.approx(variance)

    def test_a_model_does_not_differ_from_itself(self) -> None:
        truth, probs = study(100, 1)
        assert metrics.delong(truth[:, 0], np.hstack([probs, probs])).difference() == (
            0.0,
            pytest.approx(0.0, abs=1e-12),
        )

    def test_repeating_every_patients_image_does_not_make_it_more_certain(self) -> None:
        truth, probs = study(100, 1)
        single = metrics.delong(truth[:, 0], probs, np.arange(100)).covariance[0, 0]
        doubled = metrics.delong(np.tile(truth[:, 0], 2), np.tile(probs, (2, 1)), np.tile(np.arange(100), 2))
        naive = metrics.delong(np.tile(truth[:, 0], 2), np.tile(probs, (2, 1)))
        assert doubled.covariance[0, 0] == pytest.approx(single)
        assert naive.covariance[0, 0] < 0.6 * single


class TestBootstrap:
    @pytest.fixture(scope="class")
    def replicates(self) -> tuple[metrics.Assessment, metrics.Floats, metrics.Floats, np.ndarray]:
        truth, probs = study(60, 5)
        truth[::7, 2] = np.nan
        patients = np.random.default_rng(1).integers(0, 35, 60)
        model = metrics.assess(truth, probs, findings=FIVE, groups=patients, replicates=40, seed=3)
        return model, truth, probs, patients

    def test_every_replicate_equals_the_metrics_of_the_rows_it_draws(self, replicates: tuple) -> None:  # type: ignore[type-arg]
        model, truth, probs, patients = replicates
        codes, count = metrics.group_codes(patients, 60)
        weights = np.concatenate(list(metrics.resample(codes, count, 40, 3)))
        for r in range(0, 40, 7):
            rows = np.repeat(np.arange(60), weights[r])
            for k in range(5):
                known = rows[~np.isnan(truth[rows, k])]
                y, p = truth[known, k], probs[known, k]
                expected = {
                    "auroc": reference.roc_auc_score(y, p),
                    "auprc": reference.average_precision_score(y, p),
                    "f1": reference.f1_score(y, p >= 0.5),
                    "mcc": reference.matthews_corrcoef(y, p >= 0.5),
                    "brier": reference.brier_score_loss(y, p),
                    "ece": metrics.ece(y, p),
                }
                for name, value in expected.items():
                    assert model.draws.metrics[name][r, k] == pytest.approx(value, abs=1e-5), name

    def test_a_pool_throws_all_cells_together(self, replicates: tuple) -> None:  # type: ignore[type-arg]
        model, truth, probs, _ = replicates
        known = ~np.isnan(truth)
        assert model.values["auroc"][5] == pytest.approx(reference.roc_auc_score(truth[known], probs[known]))
        assert model.values["ece"][5] == pytest.approx(metrics.ece(truth[known], probs[known]))

    def test_patients_are_drawn_whole(self) -> None:
        codes = np.array([0, 0, 1, 2, 2, 2])
        for weights in metrics.resample(codes, 3, 50, 0):
            assert (weights[:, 0] == weights[:, 1]).all()
            assert (weights[:, 3] == weights[:, 5]).all()
            assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()

    def test_the_same_seed_gives_the_same_intervals_and_another_seed_others(self) -> None:
        truth, probs = study(60, 5)
        tables = [table(truth, probs, findings=FIVE, replicates=100, seed=seed) for seed in (1, 1, 2)]
        assert tables[0] == tables[1] != tables[2]

    def test_intervals_widen_when_images_belong_to_few_patients(self) -> None:
        truth, probs = study(100, 5)
        truth, probs = np.tile(truth, (4, 1)), np.tile(probs, (4, 1))
        alone = table(truth, probs, findings=FIVE, replicates=200)
        grouped = table(truth, probs, findings=FIVE, replicates=200, groups=np.tile(np.arange(100), 4))
        for metric in metrics.METRICS:
            wide, narrow = (t["findings"]["Edema"][metric] for t in (grouped, alone))
            assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"]), metric


class TestTable:
    def test_limits_hold_the_value(self) -> None:
        truth, probs = study(120, 5)
        found = table(truth, probs, findings=FIVE, replicates=100)
        for entry in [*found["findings"].values(), *found["means"].values(), *found["micro"].values()]:
            for metric in metrics.METRICS:
                assert entry[metric]["low"] <= entry[metric]["value"] <= entry[metric]["high"], metric

    def test_a_finding_with_too_few_positives_is_marked_and_not_averaged(self) -> None:
        truth, probs = study(120, 5)
        truth[:, 1] = 0
        truth[:2, 1] = 1
        found = table(truth, probs, findings=FIVE, replicates=100)
        rest = [found["findings"][f]["auroc"]["value"] for k, f in enumerate(FIVE) if k != 1]
        assert found["findings"]["Cardiomegaly"]["why"] == "not averaged: 2 positives, fewer than 3"
        assert found["findings"]["Cardiomegaly"]["auroc"]["value"] is not None
        assert found["means"]["all"]["auroc"]["value"] == pytest.approx(np.mean(rest))
        assert found["means"]["all"]["auroc"]["over"] == 4
        assert found["means"]["all"]["auroc"]["why"] == "without Cardiomegaly"

    def test_what_cannot_be_computed_is_null_with_its_reason(self) -> None:
        truth, probs = study(50, 5)
        truth[:, 0] = 0
        probs[:, 1] = 0.1
        truth[:, 2] = np.nan
        found = table(truth, probs, findings=FIVE, replicates=100)["findings"]
        assert found["Atelectasis"]["auroc"] == {"value": None, "low": None, "high": None, "why": "no positives"}
        assert found["Cardiomegaly"]["ppv"]["why"] == "nothing was called present"
        assert found["Consolidation"]["brier"]["why"] == "no row with a known truth"

    def test_a_perfect_model_still_has_an_interval(self) -> None:
        truth = np.repeat([[1.0], [0.0]], 10, axis=0)
        entry = table(truth, truth, findings=["Edema"], replicates=100)["findings"]["Edema"]
        for metric in ("auroc", "f1", "sensitivity", "specificity"):
            assert entry[metric]["value"] == entry[metric]["high"] == 1.0
            assert 0.5 < entry[metric]["low"] < 0.95

    def test_the_competition_mean_needs_all_five(self) -> None:
        truth, probs = study(50, 2)
        means = table(truth, probs, findings=("Atelectasis", "Effusion"), replicates=100)["means"]
        assert means["competition-5"]["auroc"]["value"] is None
        assert "Pleural Effusion" in means["competition-5"]["auroc"]["why"]

    def test_given_decisions_go_before_thresholds(self) -> None:
        truth, probs = study(80, 5)
        decided = table(truth, probs, findings=FIVE, decisions=truth, replicates=100)
        assert decided["findings"]["Edema"]["f1"]["value"] == 1.0
        assert decided["findings"]["Edema"]["auroc"]["value"] < 1.0


class TestDifferences:
    def test_equal_models_differ_by_nothing(self) -> None:
        truth, probs = study(80, 5)
        model = metrics.assess(truth, probs, findings=FIVE, replicates=100)
        gaps = metrics.differences(model, model)
        assert gaps["means"]["all"]["auroc"]["value"] == gaps["means"]["all"]["auroc"]["high"] == 0.0
        assert gaps["findings"]["Edema"]["f1"]["p"] == 1.0

    def test_paired_limits_are_narrower_than_the_models_own(self) -> None:
        truth, probs = study(200, 5)
        close = np.clip(probs + 0.02 * np.random.default_rng(0).normal(size=probs.shape), 0, 1)
        base, other = (metrics.assess(truth, p, findings=FIVE, replicates=200) for p in (probs, close))
        gap = metrics.differences(base, other)["findings"]["Edema"]["auroc"]
        own = metrics.table_of(base)["findings"]["Edema"]["auroc"]
        assert gap["high"] - gap["low"] < 0.5 * (own["high"] - own["low"])

    def test_bootstrap_and_delong_agree(self) -> None:
        truth, probs = study(300, 5)
        _, better = study(300, 5, strength=1.6)
        base, other = (metrics.assess(truth, p, findings=FIVE, replicates=1000) for p in (probs, better))
        for entry in metrics.differences(base, other)["findings"].values():
            gap, delong = entry["auroc"], entry["auroc"]["delong"]
            assert delong["value"] == pytest.approx(gap["value"], abs=1e-12)
            assert delong["high"] - delong["low"] == pytest.approx(gap["high"] - gap["low"], rel=0.15)

    def test_models_that_never_call_a_finding_still_differ_by_something_unknown(self) -> None:
        """Nothing was called by either: the next image might be, so the limits are not 0 to 0."""
        truth, probs = study(200, 5)
        quiet = [metrics.assess(truth, 0.4 * p, findings=FIVE, replicates=100) for p in (probs, probs**2)]
        entry = metrics.differences(*quiet)["findings"]["Edema"]
        for metric in ("f1", "mcc", "sensitivity"):
            assert entry[metric]["value"] == 0.0
            assert entry[metric]["low"] < 0.0 < entry[metric]["high"]

    def test_a_finding_of_which_nothing_is_known_has_no_difference(self) -> None:
        truth, probs = study(80, 5)
        truth[:, 2] = np.nan
        model = metrics.assess(truth, probs, findings=FIVE, replicates=100)
        entry = metrics.differences(model, model)["findings"][FIVE[2]]
        assert entry["auroc"]["value"] is None
        assert entry["auroc"]["delong"]["value"] is None

    def test_calibration_errors_differ_from_limit_to_limit(self) -> None:
        truth, probs = study(200, 5)
        base, other = (metrics.assess(truth, p, findings=FIVE, replicates=200) for p in (probs, probs**3))
        own = [metrics.table_of(model)["findings"]["Edema"]["ece"] for model in (base, other)]
        gap = metrics.differences(base, other)["findings"]["Edema"]["ece"]
        assert gap["low"] == pytest.approx(own[1]["low"] - own[0]["high"])
        assert gap["high"] == pytest.approx(own[1]["high"] - own[0]["low"])

    def test_holm_by_hand(self) -> None:
        assert metrics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])


class TestProportions:
    def test_wilson_by_hand(self) -> None:
        assert metrics.wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
        assert metrics.wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)

    def test_images_of_one_patient_that_always_agree_count_once(self) -> None:
        hits = np.repeat([True, False, True, True], 5)
        codes = np.repeat(np.arange(4), 5)
        size = metrics.effective_size(hits, np.ones(20, bool), codes, 4)
        assert 2.5 < size <= 4.0

    def test_single_images_count_fully(self) -> None:
        assert metrics.effective_size(np.array([True, False]), np.ones(2, bool), np.arange(2), 2) == 2


class TestRecalibration:
    @pytest.fixture
    def calibrated(self) -> tuple[metrics.Bools, metrics.Floats]:
        rng = np.random.default_rng(0)
        probs = rng.beta(1, 3, 20_000)
        return rng.random(20_000) < probs, probs

    def test_a_calibrated_model_has_slope_one_and_intercept_zero(self, calibrated: tuple) -> None:  # type: ignore[type-arg]
        truth, probs = calibrated
        slope, intercept = metrics.recalibration(truth, probs, np.arange(20_000), 20_000)
        assert slope.low < 1 < slope.high
        assert intercept.low < 0 < intercept.high
        assert slope.high - slope.low < 0.1

    def test_twice_too_extreme_logits_have_slope_one_half(self, calibrated: tuple) -> None:  # type: ignore[type-arg]
        truth, probs = calibrated
        odds = (probs / (1 - probs)) ** 2
        slope, _ = metrics.recalibration(truth, odds / (1 + odds), np.arange(20_000), 20_000)
        assert slope.value == pytest.approx(0.5, abs=0.03)

    def test_it_equals_an_unpenalised_logistic_regression(self) -> None:
        from sklearn.linear_model import LogisticRegression

        truth, probs = study(300, 1)
        y, p = truth[:, 0] > 0, np.clip(probs[:, 0], 0.01, 0.99)
        slope, intercept = metrics.recalibration(y, p, np.arange(300), 300)
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(p / (1 - p))[:, None], y)
        assert slope.value == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
        assert intercept.value == pytest.approx(fitted.intercept_[0], abs=1e-4)

    def test_separate_classes_have_no_slope(self) -> None:
        slope, _ = metrics.recalibration(np.array([True, False]), np.array([0.9, 0.1]), np.arange(2), 2)
        assert np.isnan(slope.value)
        assert slope.as_json()["why"]
