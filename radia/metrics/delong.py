"""The covariance of AUROCs on the same rows (DeLong, DeLong and Clarke-Pearson 1988), also by patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from radia.metrics.points import Bools, Floats, Ints, group_codes, tie_starts


@dataclass(frozen=True)
class DeLong:
    """AUROCs of m models on the same rows, [m], and their covariance, [m, m]."""

    values: Floats
    covariance: Floats

    def difference(self, first: int = 0, second: int = 1) -> tuple[float, float]:
        """AUROC of `second` minus that of `first`, and its standard error."""
        spread = self.covariance[first, first] + self.covariance[second, second] - 2 * self.covariance[first, second]
        return float(self.values[second] - self.values[first]), float(np.sqrt(max(spread, 0.0)))


def delong(truth: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None) -> DeLong:
    """DeLong's AUROCs and covariance (DeLong et al. 1988; Sun and Xu 2014), clustered where `groups` are given.

    truth [n] of 1 and 0; scores [n] or [n, m]; groups [n]. With groups, the parts of a patient's images are summed
    before they are squared (Obuchowski 1997). NaN where a class is missing.
    """
    positive = np.asarray(truth) > 0
    columns = np.asarray(scores, np.float64)
    columns = columns if columns.ndim == 2 else columns[:, None]
    values, influence = auroc_influence(positive, columns)
    if groups is None:
        # DeLong's own divisors: each class has its mean removed, and so loses one degree of freedom.
        m, n = int(positive.sum()), int((~positive).sum())
        influence[:, positive] *= np.sqrt(m / max(m - 1, 1))
        influence[:, ~positive] *= np.sqrt(n / max(n - 1, 1))
        return DeLong(values, influence @ influence.T)
    codes, count = group_codes(groups, len(positive))
    return DeLong(values, clustered_covariance(influence, codes, count))


def auroc_influence(truth: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """AUROCs [m] of scores [n, m], and how much each row moves them, [m, n]; NaN where a class is missing."""
    m, n, models = int(truth.sum()), int((~truth).sum()), scores.shape[1]
    if m == 0 or n == 0:
        return np.full(models, np.nan), np.full((models, len(truth)), np.nan)
    values, influence = np.empty(models), np.empty((models, len(truth)))
    for k in range(models):
        of_positives, of_negatives = _placements(scores[truth, k], scores[~truth, k])
        values[k] = of_positives.mean()
        influence[k, truth] = (of_positives - values[k]) / m
        influence[k, ~truth] = (of_negatives - values[k]) / n
    return values, influence


def clustered_covariance(influence: Floats, codes: Ints, count: int) -> Floats:
    """Covariance [m, m] of m statistics from each row's influence [m, n]; rows of a group move together."""
    sums = np.array([np.bincount(codes, weights=row, minlength=count) for row in influence])
    active = len(np.unique(codes))
    return np.asarray(sums @ sums.T * active / max(active - 1, 1))


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """For each positive the part of negatives below it; for each negative the part of positives above it (ties half).

    From midranks: the rank among all minus the rank in the own class counts the other class.
    """
    m, n = len(positives), len(negatives)
    both = midranks(np.concatenate([positives, negatives]))
    return (both[:m] - midranks(positives)) / n, 1 - (both[m:] - midranks(negatives)) / m


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values)
    starts = tie_starts(values[order])
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + 0.5 * (sizes + 1), sizes)
    return ranks
