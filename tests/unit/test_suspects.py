"""Suspects: out-of-fold probabilities keep patients apart, and injected errors come first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.suspects import find_suspects, out_of_fold, patient_folds, study_order


def _clinic(studies: int = 600, findings: int = 6, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features and true labels that a linear model can learn, 15% positive."""
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(studies, 20))
    logits = features @ chance.normal(size=(20, findings)) + chance.normal(size=(studies, findings))
    truth = (logits > np.quantile(logits, 0.85, axis=0)).astype(float)
    return features, truth


class TestPatientFolds:
    def test_a_patient_lies_in_one_fold(self) -> None:
        groups = np.random.default_rng(0).integers(0, 80, 300)
        labels = np.zeros((300, 2))
        fold = patient_folds(labels, groups, folds=5, seed=0)
        assert all(len(set(fold[groups == patient])) == 1 for patient in groups)

    def test_the_positives_of_a_rare_finding_are_dealt_evenly(self) -> None:
        labels = np.zeros((100, 2))
        labels[:10, 0] = 1
        labels[:50, 1] = 1
        fold = patient_folds(labels, np.arange(100), folds=5, seed=3)
        assert np.bincount(fold[:10]).tolist() == [2, 2, 2, 2, 2]

    def test_fewer_patients_than_folds_are_refused(self) -> None:
        with pytest.raises(LabelError, match="3 patients cannot be dealt into 5 folds"):
            patient_folds(np.zeros((6, 1)), np.array([1, 1, 2, 2, 3, 3]), folds=5, seed=0)


class TestOutOfFold:
    def test_probabilities_rank_the_truth(self) -> None:
        features, truth = _clinic()
        probabilities = out_of_fold(features, truth, np.arange(len(truth)))
        positive, negative = probabilities[truth[:, 0] == 1, 0], probabilities[truth[:, 0] == 0, 0]
        assert (positive[:, None] > negative[None, :]).mean() > 0.9

    def test_a_study_does_not_see_its_own_patient(self) -> None:
        """Noise features cannot predict a random label, unless a patient's other study leaks."""
        chance = np.random.default_rng(1)
        features = np.repeat(chance.normal(size=(150, 40)), 2, axis=0)
        labels = np.repeat(chance.integers(0, 2, size=(150, 1)), 2, axis=0).astype(float)
        probabilities = out_of_fold(features, labels, np.repeat(np.arange(150), 2))[:, 0]
        positive, negative = probabilities[labels[:, 0] == 1], probabilities[labels[:, 0] == 0]
        assert (positive[:, None] > negative[None, :]).mean() < 0.62

    def test_blank_and_uncertain_labels_do_not_train_but_get_a_probability(self) -> None:
        features, truth = _clinic()
        unknown = truth.copy()
        unknown[::3] = np.nan
        unknown[1::3] = -1
        changed = unknown.copy()
        changed[::3], changed[1::3] = -1, np.nan
        first = out_of_fold(features, unknown, np.arange(len(truth)))
        assert np.isfinite(first).all()
        np.testing.assert_allclose(first, out_of_fold(features, changed, np.arange(len(truth))), atol=1e-6)

    def test_a_finding_that_nobody_has_gets_a_small_probability(self) -> None:
        features, truth = _clinic()
        truth[:, 2] = 0
        assert out_of_fold(features, truth, np.arange(len(truth)))[:, 2].max() < 0.05


class TestFindSuspects:
    def test_injected_errors_come_first(self) -> None:
        features, truth = _clinic(900)
        flipped = np.random.default_rng(2).random(truth.shape) < 0.05
        labels = pd.DataFrame(np.where(flipped, 1 - truth, truth), columns=list("ABCDEF"))
        chances = out_of_fold(features, labels.to_numpy(), np.arange(900))
        suspects = find_suspects(labels, pd.DataFrame(chances, columns=list("ABCDEF")))
        first = suspects.head(int(0.15 * len(suspects)))
        found = flipped[first["id"].astype(int), [*map("ABCDEF".index, first["finding"])]]
        assert found.sum() / flipped.sum() > 0.7

    def test_each_given_label_has_one_row_and_a_blank_none(self) -> None:
        labels = pd.DataFrame({"A": [1, 0, None, 1], "B": [0, 0, 1, -1]}, index=list("wxyz"))
        chances = pd.DataFrame({"B": [0.1, 0.2, 0.9, 0.4], "A": [0.9, 0.2, 0.5, 0.1]}, index=list("wxyz"))
        suspects = find_suspects(labels, chances)
        assert len(suspects) == 7
        assert not ((suspects["id"] == "y") & (suspects["finding"] == "A")).any()
        assert suspects["rank"].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert suspects["probability"].between(0, 1).all()

    def test_a_probability_above_one_is_refused_unless_only_ranks_count(self) -> None:
        labels = pd.DataFrame({"A": [1, 0, 1, 0]}, index=list("wxyz"))
        scores = pd.DataFrame({"A": [2.5, 0.1, 0.3, 0.2]}, index=list("wxyz"))
        with pytest.raises(BadLabelValue, match="outside"):
            find_suspects(labels, scores)
        assert len(find_suspects(labels, scores, ranks_only=True)) == 4

    def test_a_label_without_probabilities_is_refused(self) -> None:
        labels = pd.DataFrame({"A": [1, 0]}, index=list("wx"))
        with pytest.raises(UnmatchedIds, match="1 of 2 ids"):
            find_suspects(labels, pd.DataFrame({"A": [0.5]}, index=["w"]))

    def test_a_label_value_of_two_is_refused(self) -> None:
        labels = pd.DataFrame({"A": [1, 2]}, index=list("wx"))
        with pytest.raises(BadLabelValue, match="not 1 / 0 / -1 or blank"):
            find_suspects(labels, pd.DataFrame({"A": [0.5, 0.1]}, index=list("wx")))

    def test_tables_without_a_common_finding_are_refused(self) -> None:
        with pytest.raises(UnknownFinding):
            find_suspects(pd.DataFrame({"A": [1]}, index=["w"]), pd.DataFrame({"B": [0.5]}, index=["w"]))


class TestReads:
    def test_true_reads_bring_errors_forward_among_the_unread(self) -> None:
        """The labels miss half of what is there; only reads can tell that."""
        chance = np.random.default_rng(5)
        truth = (chance.random((600, 5)) < 0.35).astype(float)
        scores = pd.DataFrame(
            1 / (1 + np.exp(-(chance.normal(size=truth.shape) + 2 * truth - 3))), columns=list("ABCDE")
        )
        labels = pd.DataFrame(np.where(chance.random(truth.shape) < 0.5, 0, truth), columns=list("ABCDE"))
        reads = pd.DataFrame(truth, columns=list("ABCDE")).head(60)
        found = []
        for known in (None, reads):
            suspects = find_suspects(labels, scores, reads=known)
            unread = suspects[suspects["id"].astype(int) >= 60].head(300)
            cells = unread["id"].astype(int), [*map("ABCDE".index, unread["finding"])]
            found.append((truth != labels.to_numpy())[cells].mean())
        assert found[1] > found[0]

    def test_what_was_read_is_settled(self) -> None:
        labels = pd.DataFrame({"A": [1, 0, 1, 0]}, index=list("wxyz"))
        scores = pd.DataFrame({"A": [0.9, 0.1, 0.3, 0.6]}, index=list("wxyz"))
        reads = pd.DataFrame({"A": [0, 0]}, index=["w", "x"])
        suspects = find_suspects(labels, scores, reads=reads).set_index("id")
        assert list(suspects.loc["w", ["probability", "rank", "suggested", "evidence"]]) == [1, 1, 0, "read again"]
        assert suspects.loc["x", "probability"] == 0

    def test_probabilities_are_calibrated_with_reads(self) -> None:
        chance = np.random.default_rng(6)
        truth = (chance.random((2000, 4)) < 0.3).astype(float)
        names = list("ABCD")
        scores = pd.DataFrame(1 / (1 + np.exp(-(chance.normal(size=truth.shape) + 2 * truth - 1))), columns=names)
        wrong = chance.random(truth.shape) < 0.2
        labels = pd.DataFrame(np.where(wrong, 1 - truth, truth), columns=names)
        suspects = find_suspects(labels, scores, reads=pd.DataFrame(truth, columns=names).head(200))
        assert suspects["probability"].mean() == pytest.approx(wrong.mean(), abs=0.03)

    def test_reads_teach_that_a_study_with_other_findings_is_suspect(self) -> None:
        """The model sees A only dimly; whoever has B to E has A as well, and the labels miss A half of the time."""
        chance = np.random.default_rng(8)
        sick = chance.random(800) < 0.3
        truth = np.repeat(sick[:, None], 5, axis=1).astype(float)
        logits = chance.normal(size=truth.shape) + np.array([0.3, 2.5, 2.5, 2.5, 2.5]) * truth
        names = list("ABCDE")
        labels = pd.DataFrame(truth.copy(), columns=names)
        labels.loc[chance.random(800) < 0.5, "A"] = 0
        scores = pd.DataFrame(1 / (1 + np.exp(-logits)), columns=names)
        top = []
        for columns in (names, ["A"]):
            reads = pd.DataFrame(truth, columns=names)[columns].head(120)
            found = find_suspects(labels[columns], scores[columns], reads=reads)
            missing = found[(found["finding"] == "A") & (found["given"] == 0)]
            unread = missing[missing["id"].astype(int) >= 120].head(60)
            top.append(truth[unread["id"].astype(int), 0].mean())
        assert top[0] > top[1] + 0.15

    def test_reads_of_unknown_ids_are_refused(self) -> None:
        labels = pd.DataFrame({"A": [1, 0]}, index=list("wx"))
        scores = pd.DataFrame({"A": [0.9, 0.1]}, index=list("wx"))
        with pytest.raises(UnmatchedIds, match="1 of 1 ids"):
            find_suspects(labels, scores, reads=pd.DataFrame({"A": [1]}, index=["q"]))

    def test_an_ensemble_is_ranked_by_the_mean_of_its_ranks(self) -> None:
        labels = pd.DataFrame({"A": [0, 0, 0, 1]}, index=list("wxyz"))
        first = pd.DataFrame({"A": [0.2, 0.1, 0.3, 0.9]}, index=list("wxyz"))
        second = pd.DataFrame({"A": [0.02, 0.01, 0.03, 0.05]}, index=list("wxyz"))
        order = find_suspects(labels, [first, second])["id"].tolist()
        assert order == find_suspects(labels, first)["id"].tolist()

    def test_studies_are_ordered_by_labels_expected_wrong(self) -> None:
        labels = pd.DataFrame({"A": [1, 0, 0, 1], "B": [1, 0, 0, 0]}, index=list("wxyz"))
        scores = pd.DataFrame({"A": [0.1, 0.2, 0.3, 0.9], "B": [0.1, 0.3, 0.4, 0.2]}, index=list("wxyz"))
        order = study_order(find_suspects(labels, scores))
        assert order["id"].iloc[0] == "w"
        assert order["expected_wrong"].is_monotonic_decreasing
