"""The posterior of the truth: its intercept keeps its promise, and reads move it where they should."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from radia.posterior import draw, evidence, intercept, normal_scores, prior_probability, probability

Floats = NDArray[np.float64]


def _world(studies: int, *, slope: float, prevalence: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Scores, given labels with 30% missed and 5% invented, and the truth; two findings alike."""
    chance = np.random.default_rng(seed)
    z = chance.normal(size=(studies, 2))
    truth = (chance.random(z.shape) < expit(intercept(np.log(slope), logit(prevalence)) + slope * z)).astype(float)
    flipped = chance.random(z.shape) < np.where(truth == 1, 0.3, 0.05)
    return expit(z), np.where(flipped, 1 - truth, truth), truth


class TestIntercept:
    @pytest.mark.parametrize("slope", [0.5, 2.6, 8.0])
    @pytest.mark.parametrize("prevalence", [0.01, 0.2, 0.7])
    def test_the_mean_over_all_studies_is_the_prevalence(self, slope: float, prevalence: float) -> None:
        normal = ndtri((np.arange(2000) + 0.5) / 2000)
        start = intercept(np.array(np.log(slope)), np.array(logit(prevalence)))
        assert expit(start + slope * normal).mean() == pytest.approx(prevalence, abs=0.002)

    def test_its_derivative_is_the_slope_of_the_curve(self) -> None:
        a, b, step = np.array(1.0), np.array(-1.5), 1e-4
        measured = (intercept(a + step, b) - intercept(a - step, b)) / (2 * step)
        assert intercept(a, b, 1, 0) == pytest.approx(float(measured), rel=1e-4)


class TestEvidence:
    def test_only_ranks_of_the_scores_count(self) -> None:
        scores, given, _ = _world(200, slope=2.0, prevalence=0.3, seed=0)
        squeezed = evidence(scores**7, given)
        np.testing.assert_array_equal(squeezed.z, evidence(scores, given).z)

    def test_tied_scores_share_one_rank(self) -> None:
        assert normal_scores(np.array([[0.1], [0.1], [0.9]]))[:, 0].tolist()[:1] * 2 == pytest.approx(
            normal_scores(np.array([[0.1], [0.1], [0.9]]))[:2, 0].tolist()
        )

    def test_uncertain_blank_and_explicitly_absent_are_states_of_their_own(self) -> None:
        given = np.array([[1.0], [0.0], [-1.0], [np.nan]])
        assert evidence(np.array([[0.9], [0.1], [0.4], [0.3]]), given).states.shape == (4, 1, 3)

    def test_without_reads_the_prevalence_is_that_of_the_labels(self) -> None:
        scores, given, _ = _world(2000, slope=2.0, prevalence=0.3, seed=1)
        present = prior_probability(evidence(scores, given))
        np.testing.assert_allclose(present.mean(axis=0), given.mean(axis=0), atol=0.01)


class TestDraw:
    def test_many_reads_bring_back_the_true_prevalence_and_slope(self) -> None:
        scores, given, truth = _world(4000, slope=3.5, prevalence=0.35, seed=2)
        known = evidence(scores, given)
        draws = draw(known, np.arange(1500), truth[:1500], draws=100, sweeps=4, chance=np.random.default_rng(0))
        present = probability(draws, known.z, known.states).mean(axis=(0, 1))
        np.testing.assert_allclose(present, truth.mean(axis=0), atol=0.03)
        assert np.exp(draws[..., 1]).mean() == pytest.approx(3.5, abs=0.6)

    def test_reads_of_one_finding_help_another(self) -> None:
        """Both findings are missed often; reading only the first moves the prevalence of the second upwards."""
        scores, given, truth = _world(1000, slope=3.0, prevalence=0.5, seed=3)
        given[np.random.default_rng(0).random(given.shape) < 0.6] = 0
        known = evidence(scores, given)
        reads = truth[:200].copy()
        reads[:, 1] = np.nan
        draws = draw(known, np.arange(200), reads, draws=400, sweeps=25, chance=np.random.default_rng(0))
        assert draws[:, 1, 0].mean() > known.center[1, 0] + 0.2

    def test_the_same_chance_gives_the_same_draws(self) -> None:
        scores, given, truth = _world(200, slope=2.0, prevalence=0.3, seed=4)
        known, rows = evidence(scores, given), np.arange(40)
        first, second = (
            draw(known, rows, truth[rows], draws=10, sweeps=2, chance=np.random.default_rng(7)) for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)
